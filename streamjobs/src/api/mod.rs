//! What users call beside the runtime: streams and groups, dead letters, the doctor, the test kit.

pub mod dead_letter;
pub mod doctor;
pub mod stream;
#[cfg(feature = "testing")]
pub mod testing;
