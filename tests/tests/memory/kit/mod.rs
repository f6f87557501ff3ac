//! The test kit: what `streamjobs::testing` offers to the tests of an application.

mod drain;
mod perform;
mod published;
mod twice;
