//! Validates the signature of a handler.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::spanned::Spanned;
use syn::{Error, FnArg, GenericParam, PatType, Safety, Signature, Type};

use super::parse::Function;
use crate::errors::Errors;

/// The arguments of a handler.
pub(crate) struct Inputs {
    pub(crate) event: Type,
    pub(crate) arguments: Vec<Argument>,
}

/// An argument after the first.
pub(crate) enum Argument {
    /// Made from the job, by value.
    Extracted(Type),
    /// Begun for the attempt and borrowed mutably.
    Resource(Type),
}

/// Reads the arguments of a function, and collects an error for each part that a handler cannot have.
pub(crate) fn check(function: &Function, errors: &mut Errors) -> Option<Inputs> {
    let signature = &function.signature;
    check_attributes(function, errors);
    check_qualifiers(signature, errors);
    check_generics(signature, errors);
    if let Some(receiver) = signature.receiver() {
        let message = "a handler cannot be a method: use a free function and take `State<T>`";
        errors.push(Error::new(receiver.self_token.span, message));
        return None;
    }
    let mut types = Vec::new();
    for input in &signature.inputs {
        if let FnArg::Typed(input) = input {
            check_input(input, errors);
            types.push(plain(&input.ty));
        }
    }
    let Some((event, rest)) = types.split_first() else {
        let message = "a handler takes its event as the first argument, as in `order: OrderPlaced`";
        errors.push(Error::new(signature.ident.span(), message));
        return None;
    };
    if let Type::Reference(reference) = event {
        let message = "the first argument is the event: take it by value";
        errors.push(Error::new_spanned(reference, message));
    }
    let arguments = rest.iter().filter_map(|ty| errors.keep(argument(ty))).collect();
    Some(Inputs { event: (*event).clone(), arguments })
}

fn check_attributes(function: &Function, errors: &mut Errors) {
    for attribute in &function.attributes {
        if is_handler(attribute) {
            let message =
                "a function can have one `#[handler]`: write a second function for a second group";
            errors.push(Error::new_spanned(attribute, message));
        }
    }
}

fn check_qualifiers(signature: &Signature, errors: &mut Errors) {
    let mut refuse = |span: Span, message: &str| errors.push(Error::new(span, message));
    if let Some(constness) = signature.constness {
        refuse(constness.span, "a handler cannot be `const`: it is called at run time");
    }
    if signature.asyncness.is_none() {
        refuse(signature.fn_token.span, "a handler must be async: write `async fn`");
    }
    if let Safety::Unsafe(unsafety) = signature.safety {
        refuse(
            unsafety.span,
            "a handler cannot be `unsafe`: the runtime cannot know the conditions for calling it",
        );
    }
    if let Some(abi) = &signature.abi {
        refuse(abi.span(), "a handler cannot be `extern`: only Rust code calls it");
    }
    if let Some(variadic) = &signature.variadic {
        refuse(variadic.span(), "a handler cannot be variadic: each argument has a type");
    }
}

fn check_generics(signature: &Signature, errors: &mut Errors) {
    for parameter in &signature.generics.params {
        let message = match parameter {
            GenericParam::Lifetime(_) => {
                "a handler cannot have lifetime parameters: it takes values, and resources as `&mut T`"
            }
            _ => "a handler cannot be generic: the runtime calls it with one concrete type",
        };
        errors.push(Error::new_spanned(parameter, message));
    }
    if let Some(clause) = &signature.generics.where_clause {
        let message = "a handler cannot have a `where` clause: all its types are concrete";
        errors.push(Error::new(clause.where_token.span, message));
    }
}

fn check_input(input: &PatType, errors: &mut Errors) {
    let conditional = input.attrs.iter().find(|attribute| is_conditional(attribute));
    if let Some(attribute) = conditional {
        let message =
            "an argument of a handler cannot be conditional: write two functions under `#[cfg]`";
        errors.push(Error::new_spanned(attribute, message));
    }
    if let Some(span) = find_impl(input.ty.to_token_stream()) {
        errors.push(Error::new(span, "a handler cannot take `impl Trait`: name the type"));
    }
}

/// Refuses several events if the handler runs for one event at a time.
pub(crate) fn single(event: &Type) -> syn::Result<()> {
    let Type::Path(path) = event else { return Ok(()) };
    let is_batch = |last: &syn::PathSegment| last.ident == "Batch" && !last.arguments.is_none();
    match path.path.segments.last().is_some_and(is_batch) {
        true => Err(Error::new_spanned(
            event,
            "a handler of a `Batch` needs `batch = 100`, or how many jobs share a run",
        )),
        false => Ok(()),
    }
}

/// How the runtime makes an argument after the event.
fn argument(ty: &Type) -> syn::Result<Argument> {
    let Type::Reference(reference) = ty else {
        return Ok(Argument::Extracted(ty.clone()));
    };
    if reference.mutability.is_none() {
        let message = "a handler can borrow only resources: take `State<T>` by value, or a resource as `&mut T`";
        return Err(Error::new_spanned(reference, message));
    }
    if let Some(lifetime) = &reference.lifetime {
        let message = "a resource lives as long as the attempt: write `&mut T` without a lifetime";
        return Err(Error::new(lifetime.span(), message));
    }
    Ok(Argument::Resource((*reference.elem).clone()))
}

/// Whether the attribute is `#[handler]`, by any path.
pub(crate) fn is_handler(attribute: &syn::Attribute) -> bool {
    attribute.path().segments.last().is_some_and(|segment| segment.ident == "handler")
}

/// Whether the attribute may remove its item.
pub(crate) fn is_conditional(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg") || attribute.path().is_ident("cfg_attr")
}

/// A type without surrounding groups from `macro_rules!` and parentheses.
fn plain(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => plain(&group.elem),
        Type::Paren(paren) => plain(&paren.elem),
        other => other,
    }
}

/// Finds the keyword `impl` at any depth of a type.
pub(crate) fn find_impl(tokens: TokenStream) -> Option<Span> {
    tokens.into_iter().find_map(|token| match token {
        TokenTree::Ident(word) if word == "impl" => Some(word.span()),
        TokenTree::Group(group) => find_impl(group.stream()),
        _ => None,
    })
}
