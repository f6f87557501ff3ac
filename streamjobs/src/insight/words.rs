//! Enums whose cases have a word for programs and logs.

/// A public enum with a word for each case, which `as_str` and `Display` give.
macro_rules! words {
    ($(#[$docs:meta])* pub enum $name:ident {
        $($(#[$case_docs:meta])* $case:ident = $word:literal,)*
    }) => {
        $(#[$docs])*
        pub enum $name {
            $($(#[$case_docs])* $case,)*
        }

        impl $name {
            /// The word for programs and logs. It does not change between releases.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$case => $word,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use words;
