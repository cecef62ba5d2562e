//! What a panic means: a bug. In a thread that the member cannot be without, it ends the process.
//!
//! A member whose log, driver or apply thread is gone answers nothing and is no use to its cluster, but keeps its ports,
//! its lock, and its health page waiting; a process that ends is started again. It ends before anything is unwound: while
//! a half-changed state is still locked, nobody reads it.

use crate::failpoint::is_hit;
use crate::wal_thread::end_process;
use mechi_replica::outcome::Fatal;
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::thread;

/// The threads that a member cannot be without. The store's own is not among them: who waits for it hears of its end.
const ESSENTIAL: [&str; 5] = ["driver", "wal", "apply", "watch", "keeper"];

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs what may panic, and whose caller makes an error of it.
pub fn guarded<T>(work: impl FnOnce() -> T) -> thread::Result<T> {
    let outer = GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(outer);
    done
}

/// Makes the process's hook: panics are logged, and what must not go on ends.
pub fn install() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, backtrace = %std::backtrace::Backtrace::capture(), "{}", text(panic.payload()));
        if is_fatal() {
            end(panic);
        }
    }));
}

fn end(panic: &PanicHookInfo<'_>) -> ! {
    let name = thread::current().name().unwrap_or("unnamed").to_owned();
    let why = if is_hit() { "was ended" } else { "panicked" };
    end_process(&Fatal::Bug(format!("the thread {name} {why}: {}", text(panic.payload()))))
}

fn is_fatal() -> bool {
    let is_essential = || thread::current().name().is_some_and(|name| ESSENTIAL.contains(&name));
    is_hit() || !GUARDED.get() && is_essential()
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a text")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged_on(name: &str, guard: bool) -> bool {
        let judge = move || if guard { guarded(is_fatal).unwrap() } else { is_fatal() };
        thread::Builder::new().name(name.to_owned()).spawn(judge).unwrap().join().unwrap()
    }

    #[test]
    fn a_panic_ends_the_process_in_the_members_own_threads_unless_it_is_expected() {
        for name in ESSENTIAL {
            assert!(judged_on(name, false) && !judged_on(name, true), "{name}");
        }
        for name in ["store", "tokio-runtime-worker", "main"] {
            assert!(!judged_on(name, false), "{name}");
        }
    }

    #[test]
    fn what_is_guarded_gives_its_panic_back_and_guards_no_longer() {
        assert!(guarded(|| std::panic::resume_unwind(Box::new("expected"))).is_err());
        assert!(!GUARDED.get());
        assert_eq!(guarded(|| 7).unwrap(), 7);
    }
}
