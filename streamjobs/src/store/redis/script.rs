//! What a script is, and how a file declares those that it calls.
//!
//! A script runs on the server without interruption. Each `.lua` file states its contract at its top: the
//! keys, the state before and after, and what may race with it. The texts are constant; values are
//! passed only as keys and arguments, and all keys of a call share one cluster slot. Scripts have no
//! `#!lua` header, because a server that is out of memory refuses scripts with a header, and
//! acknowledging has to go on.

use std::sync::OnceLock;

/// A script, known to servers by its digest.
#[derive(Debug)]
pub(crate) struct Script {
    /// The name of its file, for messages.
    pub(crate) name: &'static str,
    /// Its text, with the shared functions of `common.lua` in front.
    pub(crate) text: &'static str,
    /// Its digest, once a server has loaded it; the same on every server.
    pub(crate) digest: OnceLock<String>,
}

impl Script {
    pub(crate) const fn new(name: &'static str, text: &'static str) -> Self {
        Self { name, text, digest: OnceLock::new() }
    }
}

/// Scripts by the file that declares them.
pub(crate) type Scripts = &'static [&'static [&'static Script]];

/// Declares the scripts that stand beside a file in a folder of this one, and their list `SCRIPTS`.
macro_rules! scripts {
    ($($script:ident = $name:literal;)*) => {
        $(static $script: $crate::store::redis::script::Script = $crate::store::redis::script::Script::new(
            $name,
            concat!(include_str!("../common.lua"), include_str!(concat!($name, ".lua"))),
        );)*

        pub(in crate::store::redis) static SCRIPTS: &[&$crate::store::redis::script::Script] =
            &[$(&$script),*];
    };
}

pub(super) use scripts;
