//! Writes the implementation of `Event`; the input is valid.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{DeriveInput, Member};

use super::model::{Encoding, Event, Shape, VariantEvent};
use crate::paths::{Paths, at};

/// The implementation.
pub(crate) fn event(event: &Event, paths: &Paths) -> TokenStream {
    let (ident, stream) = (&event.ident, event.stream.tokens("stream_name", paths));
    let here = at(ident.span());
    let [trait_, fields, payload] = ["Event", "Fields", "Payload"].map(|name| paths.private(name));
    let [encode_error, decode_error] =
        ["EncodeError", "DecodeError"].map(|name| paths.private(name));
    let types = types(&event.shape);
    let event_type = event_type(&event.shape);
    let key = key(&event.shape, paths);
    let unique = unique(&event.shape, paths);
    let encode = encode(event, paths, here);
    let argument = argument();
    let decode = decode(event, paths, here);
    quote! {
        #[automatically_derived]
        impl #trait_ for #ident {
            const STREAM: &'static ::core::primitive::str = #stream;
            const TYPES: &'static [&'static ::core::primitive::str] = &[#(#types),*];

            fn event_type(&self) -> &'static ::core::primitive::str {
                #event_type
            }

            #key

            #unique

            fn encode(&self) -> ::core::result::Result<#fields, #encode_error> {
                #encode(self)
            }

            fn decode(
                event_type: &::core::primitive::str,
                #argument: #payload<'_>,
            ) -> ::core::result::Result<Self, #decode_error> {
                #decode
            }
        }
    }
}

/// A placeholder implementation, so that only the collected errors are reported.
pub(crate) fn fallback(input: &DeriveInput, paths: &Paths) -> TokenStream {
    let ident = &input.ident;
    let (parameters, arguments, bounds) = input.generics.split_for_impl();
    let [trait_, fields, payload] = ["Event", "Fields", "Payload"].map(|name| paths.private(name));
    let [encode_error, decode_error] =
        ["EncodeError", "DecodeError"].map(|name| paths.private(name));
    if !input.generics.params.is_empty() {
        return TokenStream::new();
    }
    quote! {
        #[automatically_derived]
        impl #parameters #trait_ for #ident #arguments #bounds {
            const STREAM: &'static ::core::primitive::str = "";
            const TYPES: &'static [&'static ::core::primitive::str] = &[];

            fn event_type(&self) -> &'static ::core::primitive::str {
                ::core::unreachable!()
            }

            fn encode(&self) -> ::core::result::Result<#fields, #encode_error> {
                ::core::unreachable!()
            }

            fn decode(
                _: &::core::primitive::str,
                _: #payload<'_>,
            ) -> ::core::result::Result<Self, #decode_error> {
                ::core::unreachable!()
            }
        }
    }
}

fn types(shape: &Shape) -> Vec<&syn::LitStr> {
    match shape {
        Shape::Struct { event_type, .. } => vec![event_type],
        Shape::Enum { variants } => variants.iter().map(|variant| &variant.event_type).collect(),
    }
}

fn event_type(shape: &Shape) -> TokenStream {
    match shape {
        Shape::Struct { event_type, .. } => quote!(#event_type),
        Shape::Enum { variants } => {
            let arms = variants.iter().map(
                |VariantEvent { ident, event_type, .. }| quote!(Self::#ident { .. } => #event_type),
            );
            quote!(match self { #(#arms),* })
        }
    }
}

/// The method for the key, if there is a key.
fn key(shape: &Shape, paths: &Paths) -> TokenStream {
    let body = match shape {
        Shape::Struct { key: None, .. } => return TokenStream::new(),
        Shape::Struct { key: Some(member), .. } => {
            let here = Span::call_site().located_at(member.span());
            let mut key = member.clone();
            if let Member::Named(ident) = &mut key {
                ident.set_span(here);
            }
            text_of(member, &quote_spanned!(here=> &self.#key), paths)
        }
        Shape::Enum { variants } => {
            if variants.iter().all(|variant| variant.key.is_none()) {
                return TokenStream::new();
            }
            let arms = variants.iter().map(|VariantEvent { ident, key, .. }| match key {
                Some(key) => {
                    let text = text_of(key, &quote!(#key), paths);
                    quote!(Self::#ident { #key, .. } => #text)
                }
                None => quote!(Self::#ident { .. } => ::core::option::Option::None),
            });
            quote!(match self { #(#arms),* })
        }
    };
    quote! {
        fn key(&self) -> ::core::option::Option<::std::string::String> {
            #body
        }
    }
}

/// The method for the fields that decide whether two publications count as the same, if some are
/// named.
fn unique(shape: &Shape, paths: &Paths) -> TokenStream {
    let [fields, error] = ["UniqueFields", "EncodeError"].map(|name| paths.private(name));
    let named = |parts: Vec<(String, TokenStream)>| match parts.is_empty() {
        true => quote!(::core::option::Option::None),
        false => {
            let calls = parts.iter().map(|(name, value)| quote!(.field(#name, #value)?));
            quote!(::core::option::Option::Some(#fields::new() #(#calls)*))
        }
    };
    let body = match shape {
        Shape::Struct { unique, .. } if unique.is_empty() => return TokenStream::new(),
        Shape::Struct { unique, .. } => {
            let part = |member: &Member| (name_of(member), quote!(&self.#member));
            named(unique.iter().map(part).collect())
        }
        Shape::Enum { variants } => {
            if variants.iter().all(|variant| variant.unique.is_empty()) {
                return TokenStream::new();
            }
            let arms = variants.iter().map(|VariantEvent { ident, unique, .. }| {
                let part = |field: &Ident| (field.unraw().to_string(), quote!(#field));
                let body = named(unique.iter().map(part).collect());
                quote!(Self::#ident { #(#unique,)* .. } => #body)
            });
            quote!(match self { #(#arms),* })
        }
    };
    quote! {
        fn unique(
            &self,
        ) -> ::core::result::Result<::core::option::Option<#fields>, #error> {
            ::core::result::Result::Ok(#body)
        }
    }
}

fn name_of(member: &Member) -> String {
    match member {
        Member::Named(ident) => ident.unraw().to_string(),
        Member::Unnamed(index) => index.index.to_string(),
    }
}

/// The text of a key. A type that has none is reported at its field.
fn text_of(field: &impl Spanned, value: &TokenStream, paths: &Paths) -> TokenStream {
    let here = at(field.span());
    let function = paths.private_at(here, "key_text");
    quote_spanned!(here=> #function(#value))
}

fn encode(event: &Event, paths: &Paths, here: Span) -> TokenStream {
    let name = match (&event.shape, event.encoding) {
        (Shape::Struct { .. }, Encoding::Json) => "encode_json",
        (Shape::Struct { .. }, Encoding::Fields) => "encode_fields",
        (Shape::Enum { .. }, Encoding::Json) => "encode_variant_json",
        (Shape::Enum { .. }, Encoding::Fields) => "encode_variant_fields",
    };
    let (function, ident) = (paths.private_at(here, name), &event.ident);
    // The span of the user's type, so that a missing `Serialize` is reported there.
    quote_spanned!(here=> #function::<#ident>)
}

/// The name of the payload argument, which is invisible to the user's code.
fn argument() -> Ident {
    Ident::new("payload", Span::mixed_site())
}

fn decode(event: &Event, paths: &Paths, here: Span) -> TokenStream {
    let [unexpected, trait_] = ["unexpected_type", "Event"].map(|name| paths.private(name));
    let (ident, argument) = (&event.ident, argument());
    let arms = match &event.shape {
        Shape::Struct { event_type, .. } => {
            let decode = paths.private_at(here, "decode");
            vec![quote_spanned!(here=> #event_type => #decode::<#ident>(#argument))]
        }
        Shape::Enum { variants } => {
            let decode = paths.private_at(here, "decode_variant");
            let arm = |(index, variant): (usize, &VariantEvent)| {
                let (event_type, index) = (&variant.event_type, index as u32);
                quote_spanned!(here=> #event_type => #decode::<#ident>(#index, #argument))
            };
            variants.iter().enumerate().map(arm).collect()
        }
    };
    quote! {
        match event_type {
            #(#arms,)*
            other => ::core::result::Result::Err(#unexpected(
                other,
                <Self as #trait_>::TYPES,
            )),
        }
    }
}
