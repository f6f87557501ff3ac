//! The serde attributes that change how an event is encoded.

use syn::{Attribute, LitStr, Meta, Token, punctuated::Punctuated};

/// The serde options of one item, as names and values.
pub(crate) struct SerdeView {
    options: Vec<Meta>,
}

impl SerdeView {
    /// Reads every `#[serde(...)]`. Serde itself reports attributes that cannot be parsed.
    pub(crate) fn new(attributes: &[Attribute]) -> Self {
        let serde = attributes.iter().filter(|attribute| attribute.path().is_ident("serde"));
        let options = serde.filter_map(|attribute| {
            attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok()
        });
        Self { options: options.flatten().collect() }
    }

    /// The first option with one of these names.
    pub(crate) fn find(&self, names: &[&str]) -> Option<&Meta> {
        let named = |meta: &&Meta| names.iter().any(|name| meta.path().is_ident(name));
        self.options.iter().find(named)
    }

    /// The value of an option for serialization: the option's own value, or the value of its
    /// `serialize`.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        match self.find(&[name])? {
            Meta::NameValue(pair) => literal(&pair.value),
            Meta::List(list) => {
                let pairs = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
                pairs.ok()?.iter().find_map(|meta| match meta {
                    Meta::NameValue(pair) if pair.path.is_ident("serialize") => {
                        literal(&pair.value)
                    }
                    _ => None,
                })
            }
            Meta::Path(_) => None,
        }
    }
}

/// A field's name by one of serde's `rename_all` rules.
pub(crate) fn renamed(field: &str, rule: &str) -> String {
    let words = field.split('_').filter(|word| !word.is_empty());
    let capital = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().into_iter().flat_map(char::to_uppercase);
        first.chain(letters).collect::<String>()
    };
    match rule {
        "UPPERCASE" | "SCREAMING_SNAKE_CASE" => field.to_uppercase(),
        "PascalCase" => words.map(capital).collect(),
        "camelCase" => {
            let pascal = words.map(capital).collect::<String>();
            let mut letters = pascal.chars();
            let first = letters.next().into_iter().flat_map(char::to_lowercase);
            first.chain(letters).collect()
        }
        "kebab-case" => field.replace('_', "-"),
        "SCREAMING-KEBAB-CASE" => field.to_uppercase().replace('_', "-"),
        _ => field.to_owned(),
    }
}

fn literal(value: &syn::Expr) -> Option<String> {
    match value {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(LitStr::value(text)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::renamed;

    #[test]
    fn rules_rename_as_serde_does() {
        let cases = [
            ("camelCase", "orderId"),
            ("PascalCase", "OrderId"),
            ("kebab-case", "order-id"),
            ("SCREAMING_SNAKE_CASE", "ORDER_ID"),
            ("snake_case", "order_id"),
        ];
        for (rule, expected) in cases {
            assert_eq!(renamed("order_id", rule), expected);
        }
    }
}
