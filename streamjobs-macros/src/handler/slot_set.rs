//! The options of a group that shares slots with others.

use std::num::NonZeroU32;

use syn::Error;

use super::parse::Options;
use crate::count;
use crate::errors::Errors;

/// Of which set the slots are, and with which weight.
#[derive(Default)]
pub(crate) struct SlotSet {
    pub(crate) slots: Option<String>,
    pub(crate) weight: Option<NonZeroU32>,
}

impl SlotSet {
    pub(super) fn new(options: &Options, errors: &mut Errors) -> Self {
        let slots = options.slots.as_ref().and_then(|literal| {
            let name = literal.value();
            let named = match name.is_empty() {
                true => Err(Error::new(literal.span(), "the name of shared slots is empty")),
                false => Ok(name),
            };
            errors.keep(named)
        });
        let weight = options.weight.as_ref().and_then(|literal| {
            let weight = count::parse("weight", literal).and_then(|weight| {
                let too_large =
                    || Error::new(literal.span(), format!("`weight` is at most {WEIGHT_MAX}"));
                (weight.get() <= WEIGHT_MAX).then_some(weight).ok_or_else(too_large)
            });
            errors.keep(weight)
        });
        if let Some(span) = options.span_of("weight").filter(|_| !options.names("slots")) {
            errors.push(Error::new(
                span,
                "`weight` belongs to `slots`: name the shared slots that it is for",
            ));
        }
        Self { slots, weight }
    }
}

/// The bound of the weight in the core crate's settings.
const WEIGHT_MAX: u32 = 100;
