//! The option that keeps what a handler returns.

use std::time::Duration;

use syn::{Error, GenericArgument, PathArguments, ReturnType, Type};

use super::parse::Options;
use crate::duration;
use crate::errors::Errors;

/// How long the handler's result is kept; `None` without the option.
pub(super) fn kept_for(
    options: &Options,
    output: &ReturnType,
    errors: &mut Errors,
) -> Option<Duration> {
    let span = options.span_of("result")?;
    if options.names("batch") {
        let message =
            "a run for several jobs has no result for a single job: remove `result`, or `batch`";
        errors.push(Error::new(span, message));
    }
    if returns_nothing(output) {
        let message = "`result` keeps what the handler returns, but this handler returns nothing: return \
                       `Result<T, JobError>`, or remove `result`";
        errors.push(Error::new(span, message));
    }
    let literal = options.result.as_ref()?;
    errors.keep(keep(&literal.value()).map_err(|message| Error::new(literal.span(), message)))
}

fn keep(text: &str) -> Result<Duration, String> {
    let keep = duration::parse(text)?;
    match keep >= KEEP_MIN && keep <= KEEP_MAX {
        true => Ok(keep),
        false => Err(String::from("`result` is at least 1s and at most 7d")),
    }
}

/// Whether the declared type is `()` or a `Result` of it.
fn returns_nothing(output: &ReturnType) -> bool {
    match output {
        ReturnType::Default => true,
        ReturnType::Type(_, ty) => is_nothing(ty) || result_of(ty).is_some_and(is_nothing),
    }
}

fn is_nothing(ty: &Type) -> bool {
    match ty {
        Type::Group(group) => is_nothing(&group.elem),
        Type::Paren(paren) => is_nothing(&paren.elem),
        Type::Tuple(tuple) => tuple.elems.is_empty(),
        _ => false,
    }
}

/// The first argument of a `Result`.
fn result_of(ty: &Type) -> Option<&Type> {
    let path = match ty {
        Type::Group(group) => return result_of(&group.elem),
        Type::Paren(paren) => return result_of(&paren.elem),
        Type::Path(path) => path,
        _ => return None,
    };
    let last = path.path.segments.last().filter(|last| last.ident == "Result")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

/// The bounds of the time. A shorter time is over before anyone asks. A longer time would make an
/// archive of results, which take the server's memory.
const KEEP_MIN: Duration = Duration::from_secs(1);
const KEEP_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    #[test]
    fn results_are_kept_for_a_second_to_seven_days() {
        assert_eq!(keep("1s"), Ok(KEEP_MIN));
        assert_eq!(keep("7d"), Ok(KEEP_MAX));
        for bad in ["999ms", "8d", "0s", "x"] {
            assert!(keep(bad).is_err(), "{bad} must be refused");
        }
    }

    #[test]
    fn nothing_is_told_apart_from_a_result() {
        let nothing: [ReturnType; 4] = [
            parse_quote!(),
            parse_quote!(-> ()),
            parse_quote!(-> Result<(), JobError>),
            parse_quote!(-> std::result::Result<(()), E>),
        ];
        assert!(nothing.iter().all(returns_nothing));
        let something: [ReturnType; 4] = [
            parse_quote!(-> Result<u8, JobError>),
            parse_quote!(-> Result<Option<()>, JobError>),
            parse_quote!(-> Answer),
            parse_quote!(-> anyhow::Result<Price>),
        ];
        assert!(!something.iter().any(returns_nothing));
    }
}
