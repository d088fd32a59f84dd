//! Two threads that take turns: one waits at a sync while the other does something.
//!
//! Invariant: never do both run at once, so what comes of it is the same at every run.
//! Neighbours: the syncs of the fake disk pass it.

use parking_lot::{Condvar, Mutex};

#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// Whoever comes after so many others waits.
    After(u64),
    /// Somebody waits; who comes now is the other one, and passes.
    Held,
}

impl Gate {
    /// [`super::FakeDisk::beside`].
    pub(super) fn run(&self, syncs: u64, work: impl FnOnce() + Send, beside: impl FnOnce()) {
        *self.state.lock() = State::After(syncs);
        std::thread::scope(|scope| {
            // Dropped in a panic too: nobody waits for ever.
            let opens = Opens(self);
            scope.spawn(move || {
                let _opens = Opens(self);
                work();
            });
            let mut state = self.state.lock();
            self.changed.wait_while(&mut state, |state| matches!(state, State::After(_)));
            drop(state);
            beside();
            drop(opens);
        });
    }

    /// Before a sync.
    pub(super) fn pass(&self) {
        let mut state = self.state.lock();
        match *state {
            State::Open | State::Held => {}
            State::After(0) => {
                *state = State::Held;
                self.changed.notify_all();
                self.changed.wait_while(&mut state, |state| *state == State::Held);
            }
            State::After(others) => *state = State::After(others - 1),
        }
    }
}

/// Opens the gate when dropped.
struct Opens<'a>(&'a Gate);

impl Drop for Opens<'_> {
    fn drop(&mut self) {
        *self.0.state.lock() = State::Open;
        self.0.changed.notify_all();
    }
}
