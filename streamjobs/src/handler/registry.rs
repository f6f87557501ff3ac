//! The handlers of a program: found at link time, or listed by hand.

use crate::handler::HandlerDef;

/// A handler found at link time.
#[cfg(feature = "inventory")]
#[derive(Debug)]
pub struct Registered(pub HandlerDef);

#[cfg(feature = "inventory")]
inventory::collect!(Registered);

impl HandlerDef {
    /// Every handler that is linked into this program, ordered by file and line. Empty without the
    /// feature `inventory`.
    #[must_use]
    pub fn linked() -> Vec<Self> {
        linked()
    }
}

/// Every handler that is linked into this program, ordered by file and line.
#[must_use]
pub fn linked() -> Vec<HandlerDef> {
    #[cfg(feature = "inventory")]
    let mut handlers =
        inventory::iter::<Registered>.into_iter().map(|found| found.0).collect::<Vec<_>>();
    #[cfg(not(feature = "inventory"))]
    let mut handlers = Vec::<HandlerDef>::new();
    handlers.sort_by_key(|handler| (handler.file, handler.line));
    handlers
}

/// Lists handlers by hand, for [`RuntimeBuilder::handlers`](crate::RuntimeBuilder::handlers).
///
/// The list has to be where its functions are visible: a handler of another module must be `pub` or
/// `pub(crate)` there.
///
/// ```
/// use streamjobs::{Entry, handler, handlers};
///
/// #[handler(group = "audit", stream = "orders")]
/// async fn note(entry: Entry) {}
///
/// let listed = handlers![note];
/// assert_eq!(listed.len(), 1);
/// ```
#[macro_export]
macro_rules! handlers {
    ($($handler:path),* $(,)?) => {
        [$({
            // First, so that the compiler reports that the function is private, not that its
            // description is.
            #[allow(deprecated)]
            let _ = $handler;
            <$handler as $crate::__private::HandlerItem>::HANDLER
        }),*]
    };
}

#[doc(hidden)]
#[macro_export]
#[cfg(feature = "inventory")]
macro_rules! __submit_handler {
    ($handler:ty) => {
        $crate::__private::inventory::submit! {
            $crate::__private::Registered(<$handler as $crate::__private::HandlerItem>::HANDLER)
        }
    };
}

#[doc(hidden)]
#[macro_export]
#[cfg(not(feature = "inventory"))]
macro_rules! __submit_handler {
    ($handler:ty) => {};
}
