//! The test kit: what `streamjobs::testing` offers to the tests of an application.

mod perform;
mod published;
