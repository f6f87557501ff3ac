//! The states that handlers need, and those that the runtime was given.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use foldhash::fast::FixedState;

/// What the arguments of a handler need from the runtime, which is checked at the start.
#[derive(Debug, Default)]
pub struct Requirements {
    states: Vec<(TypeId, &'static str)>,
}

impl Requirements {
    /// Requires a state of this type.
    pub fn state<T: Clone + Send + Sync + 'static>(&mut self) {
        self.states.push((TypeId::of::<T>(), type_name::<T>()));
    }

    /// The names of the required types that are missing.
    pub(crate) fn missing_from(&self, states: &States) -> Vec<&'static str> {
        let missing = self.states.iter().filter(|(id, _)| !states.values.contains_key(id));
        missing.map(|(_, name)| *name).collect()
    }
}

/// The states of a runtime, one for each type.
#[derive(Clone, Default)]
pub(crate) struct States {
    values: HashMap<TypeId, Arc<dyn Any + Send + Sync>, FixedState>,
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
