//! What applications call besides the client and the runtime: streams and groups, dead letters, the doctor, and
//! streams in memory for tests.

pub mod dead_letter;
pub mod doctor;
mod merge;
mod parts;
mod rows;
pub(crate) mod schedules;
mod span;
pub mod stream;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
pub mod unique;
