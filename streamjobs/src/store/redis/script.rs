//! What a script is, and how a file declares the scripts that it calls.
//!
//! A script runs on the server without interruption. Each `.lua` file states its contract at its top: the
//! keys, the state before and after, and what may race with it. The texts are constant; values are
//! passed only as keys and arguments, and all keys of a call share one cluster slot, except where many
//! calls meet in one (`batch.lua`). Scripts have no
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
    /// The script that makes many calls of this one, if there is one.
    pub(crate) many: Option<&'static Script>,
    /// Its digest, once a server has loaded it; the same on every server.
    pub(crate) digest: OnceLock<String>,
}

impl Script {
    pub(crate) const fn new(
        name: &'static str,
        text: &'static str,
        many: Option<&'static Self>,
    ) -> Self {
        Self { name, text, many, digest: OnceLock::new() }
    }
}

/// Scripts by the file that declares them.
pub(crate) type Scripts = &'static [&'static [&'static Script]];

/// Declares the scripts in the folder beside a file, and their list `SCRIPTS`. With `SCRIPT / MANY`, one
/// request can make many calls of the script. With `after "name"`, functions that some scripts of the
/// folder share precede it.
macro_rules! scripts {
    ($($script:ident $(/ $many:ident)? = $name:literal $(after $shared:literal)?;)*) => {
        $(
            static $script: $crate::store::redis::script::Script =
                $crate::store::redis::script::Script::new(
                    $name,
                    concat!(
                        include_str!("../common.lua"),
                        $(include_str!(concat!($shared, ".lua")),)?
                        include_str!(concat!($name, ".lua")),
                    ),
                    scripts!(@many $($many)?),
                );

            $(
                static $many: $crate::store::redis::script::Script =
                    $crate::store::redis::script::Script::new(
                        $name,
                        concat!(
                            include_str!("../common.lua"),
                            "local function step(KEYS, ARGV)\n",
                            include_str!(concat!($name, ".lua")),
                            include_str!("../batch.lua"),
                        ),
                        None,
                    );
            )?
        )*

        pub(in crate::store::redis) static SCRIPTS: &[&$crate::store::redis::script::Script] =
            &[$(&$script, $(&$many,)?)*];
    };
    (@many) => { None };
    (@many $many:ident) => { Some(&$many) };
}

pub(super) use scripts;
