//! Failpoints: named places at which a test makes this process end, wait, or meet an error that it cannot cause otherwise.
//!
//! They are compiled with the feature `failpoints` alone; without it `failpoint!` is nothing, and no name of a place is
//! in the program. The heart has none: what it decides is carried out here, so here is where it can go wrong.
//! `docs/failpoints.md` has the table of places.

#[cfg(feature = "failpoints")]
mod control;
#[cfg(feature = "failpoints")]
mod sites;

#[cfg(feature = "failpoints")]
pub use control::{Refused, arm, begin};
#[cfg(feature = "failpoints")]
pub use sites::{SITES, hit, is_hit};

/// `failpoint!("name")` is a place at which the process may end or wait.
///
/// With `|text| value` behind the name, the action `return(text)` makes the function around it return that value. With
/// `if condition` before the name it is a place only while that holds; the condition is not compiled without the feature.
macro_rules! failpoint {
    (if $condition:expr, $($place:tt)+) => {
        #[cfg(feature = "failpoints")]
        if $condition {
            $crate::failpoint::failpoint!($($place)+);
        }
    };
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        let _ = $crate::failpoint::hit($name);
    };
    ($name:literal, |$text:pat_param| $value:expr) => {
        #[cfg(feature = "failpoints")]
        if let Some($text) = $crate::failpoint::hit($name) {
            return $value;
        }
    };
}

pub(crate) use failpoint;

/// Adds the control of failpoints to what a listener serves, if only this machine reaches that.
#[cfg(feature = "failpoints")]
pub(crate) fn beside(router: axum::Router, address: &str) -> axum::Router {
    if control::is_near(address) { router.merge(control::routes()) } else { router }
}

/// There is nothing to control.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn beside(router: axum::Router, _address: &str) -> axum::Router {
    router
}

/// There is nowhere to be.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn is_hit() -> bool {
    false
}
