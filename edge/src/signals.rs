//! SIGTERM and SIGINT: the first asks the node to end, the second ends the process at once.
//!
//! Invariant: the second signal does not wait for anything the first one started. Neighbours: [`crate::cli`].

use std::io;
use std::sync::mpsc;
use tokio::signal::unix::{SignalKind, signal};

/// The exit code of a process that did not wait for its own end.
const EXIT_AT_ONCE: i32 = 1;

/// Signals on their way.
#[derive(Debug)]
pub(crate) struct Signals(mpsc::Receiver<&'static str>);

impl Signals {
    /// Whether one has come since the last question.
    pub(crate) fn has_come(&mut self) -> bool {
        self.0.try_recv().is_ok()
    }

    /// Waits for the first signal and names it.
    pub(crate) fn wait(&mut self) -> &'static str {
        // The thread lives as long as the process; without it the only way out is to end.
        self.0.recv().unwrap_or("no signals any more")
    }
}

/// Begins to listen, on a thread of its own.
pub(crate) fn listen() -> io::Result<Signals> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (terminate, interrupt) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async move {
            let (mut terminate, mut interrupt) = (terminate, interrupt);
            let mut seen = 0;
            loop {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                seen += 1;
                if seen > 1 {
                    eprintln!("{name} again: ending at once");
                    std::process::exit(EXIT_AT_ONCE);
                }
                let _ = sender.send(name);
            }
        });
    })?;
    Ok(Signals(receiver))
}
