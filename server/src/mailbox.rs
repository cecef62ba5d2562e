//! A queue into one thread: many push, the owner takes everything at once and sleeps only while nothing that it could
//! act on has come.

use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::Instant;

/// The sending side; cheap to clone.
pub struct Mailbox<T>(Arc<Shared<T>>);

/// The owner's side.
pub struct Letters<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
    bound: usize,
}

struct State<T> {
    letters: Vec<T>,
    closed: bool,
    /// The owner sleeps, and these kinds of letters do not wake it.
    asleep: Option<Kinds>,
    /// A letter has come that wakes the owner.
    called: bool,
}

/// Kinds of letters that an owner may leave lying for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u8);

impl Kinds {
    /// None: every letter is taken at once.
    pub const NONE: Self = Self(0);

    /// The `n`-th kind, of 8.
    pub const fn kind(n: u8) -> Self {
        Self(1 << n)
    }

    /// These and, if it is so, the others.
    #[must_use]
    pub const fn and(self, others: Self, so: bool) -> Self {
        Self(if so { self.0 | others.0 } else { self.0 })
    }

    /// Tells whether all of `kind` is among these.
    const fn has(self, kind: Self) -> bool {
        kind.0 != 0 && self.0 & kind.0 == kind.0
    }
}

/// Makes a box in which at most `bound` letters wait, beside those that [`Mailbox::push_owed`] adds.
pub fn mailbox<T>(bound: usize) -> (Mailbox<T>, Letters<T>) {
    let state = Mutex::new(State { letters: Vec::new(), closed: false, asleep: None, called: false });
    let shared = Arc::new(Shared { state, arrived: Condvar::new(), bound });
    (Mailbox(shared.clone()), Letters(shared))
}

/// Why a letter was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// As many as may wait are waiting.
    Full,
    /// The owner is gone.
    Closed,
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Mailbox<T> {
    /// Puts a letter in.
    ///
    /// - Errors: the box is full, or its owner is gone.
    pub fn push(&self, letter: T) -> Result<(), Refused> {
        self.put(letter, Kinds::NONE, self.0.bound)
    }

    /// Puts a letter in that does not wake an owner who lets this kind lie.
    ///
    /// - Errors: the box is full, or its owner is gone.
    pub fn push_kind(&self, letter: T, kind: Kinds) -> Result<(), Refused> {
        self.put(letter, kind, self.0.bound)
    }

    /// Puts a letter in whatever the bound says: for answers to what the owner itself asked for, whose number it
    /// bounds. Lost if the owner is gone.
    pub fn push_owed(&self, letter: T) {
        // A closed box means that the owner has ended and needs no answer.
        let _ = self.put(letter, Kinds::NONE, usize::MAX);
    }

    fn put(&self, letter: T, kind: Kinds, bound: usize) -> Result<(), Refused> {
        let mut state = self.0.state.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.letters.len() >= bound {
            return Err(Refused::Full);
        }
        state.letters.push(letter);
        let wakes = !state.called && state.asleep.is_some_and(|lie| !lie.has(kind));
        state.called |= wakes;
        drop(state);
        if wakes {
            self.0.arrived.notify_one();
        }
        Ok(())
    }
}

impl<T> Letters<T> {
    /// Takes all letters, appending them to `letters`; waits for the first one, at most until `deadline`. Who has
    /// letters in hand does not wait: they would lie there until another one comes.
    pub fn take(&self, letters: &mut Vec<T>, deadline: Option<Instant>) {
        self.take_but(letters, deadline, Kinds::NONE);
    }

    /// Does the same, but letters of the kinds `lie` alone end the wait only at the deadline.
    ///
    /// - Shape: those that lie there already are taken at once. Who lets some lie has seen them.
    pub fn take_but(&self, letters: &mut Vec<T>, deadline: Option<Instant>, lie: Kinds) {
        let mut state = self.0.state.lock();
        if letters.is_empty() && state.letters.is_empty() {
            (state.asleep, state.called) = (Some(lie), false);
            while !state.called {
                match deadline {
                    None => self.0.arrived.wait(&mut state),
                    Some(deadline) => {
                        if self.0.arrived.wait_until(&mut state, deadline).timed_out() {
                            break;
                        }
                    }
                }
            }
            state.asleep = None;
        }
        if letters.is_empty() {
            std::mem::swap(letters, &mut state.letters);
        } else {
            letters.append(&mut state.letters);
        }
    }

    /// Takes all letters that are there, without waiting.
    pub fn take_now(&self, letters: &mut Vec<T>) {
        self.take(letters, Some(Instant::now()));
    }
}

impl<T> Drop for Letters<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.closed = true;
        // Whoever waits for an answer to one of these must learn that none will come.
        let abandoned = std::mem::take(&mut state.letters);
        drop(state);
        drop(abandoned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_taken_in_order_and_all_at_once() {
        let (mailbox, letters) = mailbox(8);
        for letter in 1..=3 {
            mailbox.push(letter).unwrap();
        }
        let mut taken = vec![0];
        letters.take(&mut taken, None);
        assert_eq!(taken, [0, 1, 2, 3]);
    }

    #[test]
    fn who_has_letters_in_hand_does_not_wait_for_more() {
        let (mailbox, letters) = mailbox(8);
        let mut taken = vec![1];
        letters.take(&mut taken, None);
        assert_eq!(taken, [1]);
        mailbox.push(2).unwrap();
        letters.take(&mut taken, None);
        assert_eq!(taken, [1, 2]);
    }

    #[test]
    fn letters_that_may_lie_wait_for_one_that_may_not() {
        const WISH: Kinds = Kinds::kind(0);
        let (mailbox, letters) = mailbox(8);
        mailbox.push_kind(1, WISH).unwrap();
        let mut taken = Vec::new();
        letters.take_but(&mut taken, None, WISH);
        assert_eq!(taken, [1], "what lies there is taken");
        taken.clear();
        let sender = mailbox.clone();
        let owner = std::thread::spawn(move || {
            letters.take_but(&mut taken, None, WISH);
            (taken, letters)
        });
        while sender.0.state.lock().asleep.is_none() {
            std::thread::yield_now();
        }
        sender.push_kind(2, WISH).unwrap();
        assert!(!sender.0.state.lock().called, "the owner sleeps on");
        sender.push_kind(3, Kinds::kind(1)).unwrap();
        let (mut taken, letters) = owner.join().unwrap();
        assert_eq!(taken, [2, 3], "another kind wakes it, and it takes all");
        taken.clear();
        let deadline = Instant::now() + std::time::Duration::from_millis(1);
        letters.take_but(&mut taken, Some(deadline), WISH);
        assert!(taken.is_empty());
    }

    #[test]
    fn a_full_box_refuses_clients_but_takes_what_is_owed() {
        let (mailbox, letters) = mailbox(1);
        mailbox.push(1).unwrap();
        assert_eq!(mailbox.push(2), Err(Refused::Full));
        mailbox.push_owed(3);
        let mut taken = Vec::new();
        letters.take_now(&mut taken);
        assert_eq!(taken, [1, 3]);
    }

    #[test]
    fn a_deadline_ends_the_wait_and_a_gone_owner_is_noticed() {
        let (mailbox, letters) = mailbox(1);
        let mut taken: Vec<u8> = Vec::new();
        letters.take(&mut taken, Some(Instant::now()));
        assert!(taken.is_empty());
        drop(letters);
        assert_eq!(mailbox.push(1), Err(Refused::Closed));
    }
}
