//! All errors are reported at once and cause no others: the function and its name in lists stay usable.

use streamjobs::{Entry, handler, handlers};

#[handler(stream = "", concurrency = 0, timeout = "soon", retries = 3)]
fn faulty<T>(_: Entry, _: &T) -> u8 {
    7
}

fn main() {
    let _ = handlers![faulty];
    let _ = faulty::<u8>;
}
