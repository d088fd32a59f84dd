//! Who holds which client identifier, over all shards.
//!
//! Invariant: at most one [`Claim`] per identifier exists at any time. A newcomer asks the holder to go and waits until
//! its claim is dropped; of several newcomers the last one gets it. [MQTT-3.1.4-3] Neighbours: `handshake` claims,
//! `connection` keeps the claim as long as its session lives and leaves when it is asked to.

use hashbrown::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// All claims of a node.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: Mutex<HashMap<Arc<str>, Entry>>,
}

#[derive(Debug)]
struct Entry {
    /// Asks the holder to go; taken when used.
    ask: Option<oneshot::Sender<()>>,
    /// The newcomer that gets the identifier next.
    next: Option<oneshot::Sender<Claim>>,
}

/// The right to be the client of this identifier, until dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    registry: Arc<Registry>,
    client_id: Arc<str>,
    asked: oneshot::Receiver<()>,
}

/// A still newer connection took the identifier while this one waited.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Superseded;

impl Registry {
    /// Claims an identifier; waits for the holder to go. Cancel-safe: a dropped wait leaves no trace.
    pub(crate) async fn claim(self: &Arc<Self>, client_id: &Arc<str>) -> Result<Claim, Superseded> {
        let wait = {
            let mut entries = self.lock();
            match entries.get_mut(client_id) {
                None => {
                    let (ask, asked) = oneshot::channel();
                    entries.insert(client_id.clone(), Entry { ask: Some(ask), next: None });
                    return Ok(Claim {
                        registry: self.clone(),
                        client_id: client_id.clone(),
                        asked,
                    });
                }
                Some(entry) => {
                    if let Some(ask) = entry.ask.take() {
                        // The holder may be going already; then there is nobody to ask.
                        let _ = ask.send(());
                    }
                    let (next, wait) = oneshot::channel();
                    entry.next = Some(next);
                    wait
                }
            }
        };
        wait.await.map_err(|_| Superseded)
    }

    fn release(self: &Arc<Self>, client_id: &Arc<str>) {
        let handed = {
            let mut entries = self.lock();
            match entries.get_mut(client_id).and_then(|entry| Some((entry.next.take()?, entry))) {
                None => {
                    entries.remove(client_id);
                    None
                }
                Some((next, entry)) => {
                    let (ask, asked) = oneshot::channel();
                    entry.ask = Some(ask);
                    let claim =
                        Claim { registry: self.clone(), client_id: client_id.clone(), asked };
                    Some((next, claim))
                }
            }
        };
        if let Some((next, claim)) = handed {
            // If the newcomer is gone, the claim comes back here, is dropped, and is released in its turn.
            let _ = next.send(claim);
        }
    }

    /// A panic elsewhere leaves the map whole: each change to it is one operation.
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Ready when another connection wants the identifier. Ready once; then drop the claim.
    pub(crate) fn poll_asked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.asked).poll(cx).map(|_| ())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.registry.release(&self.client_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn is_asked(claim: &mut Claim) -> bool {
        claim.poll_asked(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn ready<T>(poll: Poll<Result<T, Superseded>>) -> Result<T, Superseded> {
        match poll {
            Poll::Ready(result) => result,
            Poll::Pending => panic!("the claim should be decided"),
        }
    }

    #[test]
    fn the_last_newcomer_gets_it_and_never_two_hold_it() {
        let registry = Arc::new(Registry::default());
        let id: Arc<str> = "a".into();
        let mut first = ready(poll(Box::pin(registry.claim(&id)).as_mut())).unwrap();
        assert!(!is_asked(&mut first));
        let mut second = Box::pin(registry.claim(&id));
        assert!(poll(second.as_mut()).is_pending());
        assert!(is_asked(&mut first));
        let mut third = Box::pin(registry.claim(&id));
        assert!(poll(third.as_mut()).is_pending());
        assert_eq!(ready(poll(second.as_mut())).unwrap_err(), Superseded);
        drop(first);
        let mut third = ready(poll(third.as_mut())).unwrap();
        assert!(!is_asked(&mut third));
        let mut fourth = Box::pin(registry.claim(&id));
        assert!(poll(fourth.as_mut()).is_pending());
        assert!(is_asked(&mut third));
        drop(third);
        drop(ready(poll(fourth.as_mut())).unwrap());
        assert!(registry.lock().is_empty(), "nothing remains of an identifier that nobody holds");
    }

    #[test]
    fn a_newcomer_that_gives_up_does_not_keep_the_identifier() {
        let registry = Arc::new(Registry::default());
        let id: Arc<str> = "a".into();
        let first = ready(poll(Box::pin(registry.claim(&id)).as_mut())).unwrap();
        let mut second = Box::pin(registry.claim(&id));
        assert!(poll(second.as_mut()).is_pending());
        drop(first);
        // Handed over, but never looked at.
        drop(second);
        assert!(registry.lock().is_empty());
        let first = ready(poll(Box::pin(registry.claim(&id)).as_mut())).unwrap();
        let mut second = Box::pin(registry.claim(&id));
        assert!(poll(second.as_mut()).is_pending());
        drop(second);
        drop(first);
        assert!(registry.lock().is_empty());
    }
}
