//! A progress bar on one line.

use crate::output::out;
use rustix::termios::tcgetwinsize;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::time::{Instant, interval};

/// How often the bar is drawn anew.
const REFRESH: Duration = Duration::from_millis(200);
/// A bar shorter than this says nothing.
const WIDTH_MIN: usize = 3;

/// Draws what `current` counts until the future ends, and returns what that returns.
pub(super) async fn until<T>(total: u64, current: impl Fn() -> u64, work: impl Future<Output = T>) -> T {
    let bar = Bar { total, width: width(), begun: Instant::now() };
    let mut refresh = interval(REFRESH);
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            ended = &mut work => {
                let took = bar.begun.elapsed().as_secs();
                out(format!("{}\n", bar.line(current(), &format!(" {took}s"))));
                return ended;
            }
            _ = refresh.tick() => {
                let current = current();
                out(bar.line(current, &bar.left(current)));
            }
        }
    }
}

/// The terminal's width; 0 if it is none, and then there is no bar, only numbers.
fn width() -> usize {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return 0;
    }
    tcgetwinsize(&stdout).map_or(0, |size| size.ws_col.into())
}

struct Bar {
    total: u64,
    width: usize,
    begun: Instant,
}

impl Bar {
    fn line(&self, current: u64, time: &str) -> String {
        let count = format!(" {current} / {} ", self.total);
        let share = current.min(self.total) as f64 / self.total as f64;
        let percent = format!(" {:6.2}%", share * 100.0);
        let room = self.width.saturating_sub(count.len() + percent.len() + time.len() + 2);
        let bar = if room < WIDTH_MIN {
            String::new()
        } else {
            let full = ((share * room as f64).ceil() as usize).min(room);
            format!("B{}{}!", "o".repeat(full), " ".repeat(room - full))
        };
        let line = format!("{count}{bar}{percent}{time}");
        format!("\r{line:width$}", width = self.width)
    }

    /// How long it takes yet, at the pace so far.
    fn left(&self, current: u64) -> String {
        if current == 0 {
            return String::new();
        }
        let per_entry = self.begun.elapsed().as_secs_f64() / current as f64;
        let seconds = (per_entry * self.total.saturating_sub(current) as f64) as u64;
        if seconds == 0 { String::new() } else { format!(" {:02}m{:02}s", seconds / 60, seconds % 60) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_the_line() {
        let bar = |width| Bar { total: 60, width, begun: Instant::now() };
        assert_eq!(bar(0).line(15, " 00m45s"), "\r 15 / 60   25.00% 00m45s");
        assert_eq!(bar(35).line(15, " 00m45s"), "\r 15 / 60 Booo      !  25.00% 00m45s");
        assert_eq!(bar(40).line(60, " 1m0s"), "\r 60 / 60 Boooooooooooooooo! 100.00% 1m0s");
    }
}
