//! The validated description of an event.

use proc_macro2::Span;
use syn::{
    Attribute, Data, DataEnum, DeriveInput, Error, Field, Fields, Generics, Ident, LitStr, Member,
    Variant, ext::IdentExt, spanned::Spanned,
};

use super::parse::{self, Options};
use super::serde_view::{SerdeView, renamed};
use crate::errors::Errors;
use crate::name::{self, Name};

/// An event that can be expanded.
pub(crate) struct Event {
    pub(crate) ident: Ident,
    pub(crate) stream: Name,
    pub(crate) encoding: Encoding,
    pub(crate) shape: Shape,
}

/// The encoding of the payload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Fields,
}

/// One event type, or one for each variant.
pub(crate) enum Shape {
    Struct { event_type: LitStr, key: Option<Member>, unique: Vec<Member> },
    Enum { variants: Vec<VariantEvent> },
}

/// The event type of one variant.
pub(crate) struct VariantEvent {
    pub(crate) ident: Ident,
    pub(crate) event_type: LitStr,
    /// A field of a struct variant.
    pub(crate) key: Option<Ident>,
    /// Fields of a struct variant, in the order in which they are named.
    pub(crate) unique: Vec<Ident>,
}

impl Event {
    /// Validates the whole input and collects all errors.
    pub(crate) fn new(input: &DeriveInput, options: Options, errors: &mut Errors) -> Option<Self> {
        check_generics(&input.generics, errors);
        let here = input.ident.span();
        let stream = required(&options, &options.stream, here, "stream = \"orders\"", errors);
        if let Some(stream) = &stream {
            errors.keep(name::stream(stream));
        }
        let encoding = encoding(&options, errors);
        let shape = match &input.data {
            Data::Struct(data) => {
                check_untagged(input, encoding, errors);
                let rule = SerdeView::new(&input.attrs).text("rename_all");
                check_flat(&data.fields, rule.as_deref(), encoding, errors);
                let event_type = required(
                    &options,
                    &options.event_type,
                    here,
                    "type = \"order.placed\"",
                    errors,
                );
                if let Some(event_type) = &event_type {
                    errors.keep(name::event_type(event_type));
                }
                let key = options.key.as_ref();
                let key = key.and_then(|key| errors.keep(key_of(key, &data.fields)));
                let unique = options.unique.as_ref();
                let unique = unique.map(|names| unique_of(names, &data.fields, errors));
                let unique = unique.unwrap_or_default();
                event_type.map(|event_type| Shape::Struct { event_type, key, unique })
            }
            Data::Enum(data) => enum_shape(input, data, &options, encoding, errors),
            Data::Union(data) => {
                let text = "an event must be a struct or an enum";
                errors.push(Error::new(data.union_token.span, text));
                None
            }
        };
        Some(Self { ident: input.ident.clone(), stream: stream?, encoding, shape: shape? })
    }
}

fn check_generics(generics: &Generics, errors: &mut Errors) {
    for parameter in &generics.params {
        let text = match parameter {
            syn::GenericParam::Lifetime(_) => {
                "an event cannot borrow: remove the lifetime and use owned types"
            }
            _ => "an event cannot be generic: each event type is one Rust type",
        };
        errors.push(Error::new(parameter.span(), text));
    }
}

fn required<T: Clone>(
    options: &Options,
    option: &Option<T>,
    place: Span,
    example: &str,
    errors: &mut Errors,
) -> Option<T> {
    let name = example.split(' ').next().unwrap_or_default();
    if option.is_none() && !options.names(name) {
        let text = format!("an event needs a {name}, as in `#[event({example})]`");
        errors.push(Error::new(place, text));
    }
    option.clone()
}

fn encoding(options: &Options, errors: &mut Errors) -> Encoding {
    match options.encoding.as_ref().map(|encoding| (encoding.value(), encoding.span())) {
        None => Encoding::Json,
        Some((text, _)) if text == "json" => Encoding::Json,
        Some((text, _)) if text == "fields" => Encoding::Fields,
        Some((text, span)) => {
            let text = format!("unknown encoding {text:?}: expected \"json\" or \"fields\"");
            errors.push(Error::new(span, text));
            Encoding::Json
        }
    }
}

/// Finds the field that a key names.
fn key_of(key: &LitStr, fields: &Fields) -> syn::Result<Member> {
    let wanted = key.value();
    let text = format!("`key` must name a field: there is no field `{wanted}`");
    member(&wanted, fields).ok_or_else(|| Error::new(key.span(), text))
}

/// Finds the fields that `unique` names, in its order.
fn unique_of(names: &LitStr, fields: &Fields, errors: &mut Errors) -> Vec<Member> {
    let mut found = Vec::<Member>::new();
    for wanted in names.value().split(',').map(str::trim) {
        let text = match member(wanted, fields) {
            Some(member) if found.contains(&member) => {
                format!("`unique` names the field `{wanted}` twice")
            }
            Some(member) => {
                found.push(member);
                continue;
            }
            None if wanted.is_empty() => {
                "`unique` must name fields, as in `unique = \"doc, version\"`".to_owned()
            }
            None => format!("`unique` must name fields: there is no field `{wanted}`"),
        };
        errors.push(Error::new(names.span(), text));
    }
    found
}

fn member(wanted: &str, fields: &Fields) -> Option<Member> {
    let named = |(index, field): (usize, &Field)| match &field.ident {
        Some(ident) => {
            (*ident == wanted || ident.unraw() == wanted).then(|| Member::Named(ident.clone()))
        }
        None => (wanted == index.to_string()).then(|| Member::Unnamed(index.into())),
    };
    fields.iter().enumerate().find_map(named)
}

fn enum_shape(
    input: &DeriveInput,
    data: &DataEnum,
    options: &Options,
    encoding: Encoding,
    errors: &mut Errors,
) -> Option<Shape> {
    if let Some(event_type) = &options.event_type {
        let text = "set `type` on each variant of an event enum, not on the enum";
        errors.push(Error::new(event_type.span(), text));
    }
    if let Some(key) = &options.key {
        let text = "set `key` on the variants of an event enum, not on the enum";
        errors.push(Error::new(key.span(), text));
    }
    if let Some(unique) = &options.unique {
        let text = "set `unique` on the variants of an event enum, not on the enum";
        errors.push(Error::new(unique.span(), text));
    }
    let serde = SerdeView::new(&input.attrs);
    if let Some(tagging) = serde.find(&["tag", "content", "untagged"]) {
        let text = "an event enum must have serde's default tagging: the event type is the tag";
        errors.push(Error::new(tagging.span(), text));
    }
    if data.variants.is_empty() {
        errors.push(Error::new(input.ident.span(), "an event enum needs at least one variant"));
    }
    let mut variants = Vec::<VariantEvent>::new();
    for variant in &data.variants {
        let Some(variant) = variant_event(variant, &input.attrs, encoding, errors) else {
            continue;
        };
        let same = |other: &&VariantEvent| other.event_type.value() == variant.event_type.value();
        if let Some(other) = variants.iter().find(same) {
            let text = format!("this type is already used by variant `{}`", other.ident);
            errors.push(Error::new(variant.event_type.span(), text));
        }
        variants.push(variant);
    }
    Some(Shape::Enum { variants })
}

fn variant_event(
    variant: &Variant,
    container: &[Attribute],
    encoding: Encoding,
    errors: &mut Errors,
) -> Option<VariantEvent> {
    let options = parse::variant(&variant.attrs, errors);
    let serde = SerdeView::new(&variant.attrs);
    let hidden = ["skip", "skip_serializing", "skip_deserializing", "other", "untagged"];
    if let Some(option) = serde.find(&hidden) {
        let text = "every variant of an event enum must be serializable and deserializable";
        errors.push(Error::new(option.span(), text));
    }
    if let Fields::Unnamed(fields) = &variant.fields
        && fields.unnamed.len() != 1
    {
        let text = "a variant of an event enum holds one value, named fields, or nothing";
        errors.push(Error::new(fields.span(), text));
    }
    if matches!(variant.fields, Fields::Named(_)) {
        // The enum's `rename_all` is for the names of its variants.
        let own = SerdeView::new(&variant.attrs).text("rename_all");
        let rule = own.or_else(|| SerdeView::new(container).text("rename_all_fields"));
        check_flat(&variant.fields, rule.as_deref(), encoding, errors);
    }
    let example = "type = \"order.placed\"";
    let event_type =
        required(&options, &options.event_type, variant.ident.span(), example, errors)?;
    errors.keep(name::event_type(&event_type));
    let key = match (&options.key, &variant.fields) {
        (None, _) => None,
        (Some(key), Fields::Named(fields)) => {
            match errors.keep(key_of(key, &Fields::Named(fields.clone()))) {
                Some(Member::Named(ident)) => Some(ident),
                _ => None,
            }
        }
        (Some(key), _) => {
            errors.push(Error::new(key.span(), "`key` needs a variant with named fields"));
            None
        }
    };
    let unique = variant_unique(&options, &variant.fields, errors);
    Some(VariantEvent { ident: variant.ident.clone(), event_type, key, unique })
}

/// The fields of a struct variant that `unique` names.
fn variant_unique(options: &Options, fields: &Fields, errors: &mut Errors) -> Vec<Ident> {
    let Some(names) = &options.unique else { return Vec::new() };
    if !matches!(fields, Fields::Named(_)) {
        errors.push(Error::new(names.span(), "`unique` needs a variant with named fields"));
        return Vec::new();
    }
    let named = |member| match member {
        Member::Named(ident) => Some(ident),
        Member::Unnamed(_) => None,
    };
    unique_of(names, fields, errors).into_iter().filter_map(named).collect()
}

/// The event type is the only tag of flat fields.
fn check_untagged(input: &DeriveInput, encoding: Encoding, errors: &mut Errors) {
    let serde = SerdeView::new(&input.attrs);
    let tagging = serde.find(&["tag", "content", "untagged"]);
    if let Some(tagging) = tagging.filter(|_| encoding == Encoding::Fields) {
        let text = format!(
            "`{}` cannot have a tag of serde's with `encoding = \"fields\"`: the event type is the tag",
            input.ident
        );
        errors.push(Error::new(tagging.span(), text));
    }
}

/// Flat fields share the entry with the envelope, so they must not have its names. They are text: serde reads a
/// flattened part before it knows its types, and then refuses text for a number. `rule` is serde's rule for their names.
fn check_flat(fields: &Fields, rule: Option<&str>, encoding: Encoding, errors: &mut Errors) {
    if encoding != Encoding::Fields {
        return;
    }
    for field in fields {
        let Some(ident) = &field.ident else { continue };
        let serde = SerdeView::new(&field.attrs);
        if let Some(flatten) = serde.find(&["flatten"]) {
            let text = format!(
                "`{ident}` cannot be flattened with `encoding = \"fields\"`: flat fields are text, and serde would not \
                 read it back; name its parts as fields here, or use the default encoding"
            );
            errors.push(Error::new(flatten.span(), text));
        }
        let plain = ident.to_string().trim_start_matches("r#").to_owned();
        let renamed_by_rule = || rule.map_or(plain.clone(), |rule| renamed(&plain, rule));
        let wire = serde.text("rename").unwrap_or_else(renamed_by_rule);
        let skipped = serde.find(&["skip", "skip_serializing"]).is_some();
        let is_reserved = wire == "type" || wire == "data" || wire.starts_with("sj-");
        if is_reserved && !skipped {
            let text = format!(
                "a flat field cannot be named `{wire}`: `type`, `data` and the prefix `sj-` belong \
                 to the envelope"
            );
            errors.push(Error::new(ident.span(), text));
        }
    }
}
