//! Arguments of handlers, and what they need from the runtime.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::handler::Job;
use crate::outcome::JobError;

/// An argument of a handler, made from the job.
///
/// Implement it for what your handlers need over and over, a tenant for example:
///
/// ```
/// use streamjobs::{FromJob, Job, JobError};
///
/// struct Tenant(String);
///
/// impl FromJob for Tenant {
///     fn from_job(job: &Job) -> Result<Self, JobError> {
///         let tenant = job.entry().text("tenant").ok_or("the entry names no tenant")?;
///         Ok(Self(tenant.to_owned()))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a handler",
    label = "not an extractor",
    note = "the first argument is the event; the others are `State<T>`, `Job`, `&mut` resources, or types \
            that implement `streamjobs::FromJob`"
)]
pub trait FromJob: Sized + Send {
    /// Makes the argument.
    ///
    /// # Errors
    ///
    /// The attempt fails with the error, and the handler is not run.
    fn from_job(job: &Job) -> Result<Self, JobError>;

    /// Names what the argument needs from the runtime, so that a start without it is refused.
    fn require(requirements: &mut Requirements) {
        let _ = requirements;
    }
}

impl FromJob for Job {
    fn from_job(job: &Job) -> Result<Self, JobError> {
        Ok(job.clone())
    }
}

/// What the application gave to the runtime's builder, by type.
///
/// A handler asks for it with the pattern `State(mailer): State<Mailer>`. The value is cloned for
/// each job, so wrap what is expensive to clone in an [`Arc`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State<T>(pub T);

impl<T: Clone + Send + Sync + 'static> FromJob for State<T> {
    fn from_job(job: &Job) -> Result<Self, JobError> {
        let state = job.states().get::<T>();
        let state = state
            .ok_or_else(|| format!("the runtime has no state of type {}", type_name::<T>()))?;
        Ok(Self(state))
    }

    fn require(requirements: &mut Requirements) {
        requirements.state::<T>();
    }
}

/// What the arguments of a handler need from the runtime.
#[derive(Debug, Default)]
pub struct Requirements {
    states: Vec<(TypeId, &'static str)>,
}

impl Requirements {
    /// Needs a state of this type.
    pub fn state<T: Clone + Send + Sync + 'static>(&mut self) {
        self.states.push((TypeId::of::<T>(), type_name::<T>()));
    }

    /// The names of the needed types that are not there.
    pub(crate) fn missing_from(&self, states: &States) -> Vec<&'static str> {
        let missing = self.states.iter().filter(|(id, _)| !states.values.contains_key(id));
        missing.map(|(_, name)| *name).collect()
    }
}

/// The states of a runtime, one for each type.
#[derive(Clone, Default)]
pub(crate) struct States {
    values: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl States {
    pub(crate) fn insert<T: Clone + Send + Sync + 'static>(&mut self, value: T) {
        self.values.insert(TypeId::of::<T>(), Arc::new(value));
    }

    pub(crate) fn get<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.values.get(&TypeId::of::<T>())?.downcast_ref::<T>().cloned()
    }
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("States").field("count", &self.values.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_states_are_named() {
        let mut requirements = Requirements::default();
        requirements.state::<u32>();
        requirements.state::<String>();
        let mut states = States::default();
        states.insert(7_u32);
        assert_eq!(states.get::<u32>(), Some(7));
        assert_eq!(requirements.missing_from(&states), ["alloc::string::String"]);
    }
}
