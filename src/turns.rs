//! Who may use the GPU's queue now: long work takes turns with answers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use futures_channel::oneshot::{Receiver, Sender, channel};

/// Hands out turns, one at a time, in the order in which they are asked for.
#[derive(Clone, Default)]
pub struct Turns(Rc<RefCell<Queue>>);

#[derive(Default)]
struct Queue {
    taken: bool,
    waiting: VecDeque<Sender<Turn>>,
}

/// A turn, which ends when this is dropped.
pub struct Turn(Turns);

impl Turns {
    /// Waits for the turns before, and takes one.
    pub async fn take(&self) -> Turn {
        match self.ask() {
            Ok(turn) => turn,
            // The sender is dropped only together with the queue, which `self` keeps.
            Err(coming) => coming.await.unwrap_or_else(|_| Turn(self.clone())),
        }
    }

    fn ask(&self) -> Result<Turn, Receiver<Turn>> {
        let mut queue = self.0.borrow_mut();
        if !queue.taken {
            queue.taken = true;
            return Ok(Turn(self.clone()));
        }
        let (sender, receiver) = channel();
        queue.waiting.push_back(sender);
        Err(receiver)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut queue = self.0.0.borrow_mut();
            let next = queue.waiting.pop_front();
            queue.taken = next.is_some();
            next
        };
        // To one who no longer waits the turn cannot be given: it comes back, is dropped, and goes on.
        if let Some(next) = next {
            let _ = next.send(Turn(self.0.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn turns_come_one_at_a_time_in_order() {
        let turns = Turns::default();
        let Poll::Ready(first) = poll(pin!(turns.take())) else {
            panic!("a free turn is not given");
        };
        let (mut second, mut third) = (pin!(turns.take()), pin!(turns.take()));
        assert!(poll(second.as_mut()).is_pending());
        assert!(poll(third.as_mut()).is_pending());
        drop(first);
        assert!(poll(third.as_mut()).is_pending());
        let Poll::Ready(turn) = poll(second.as_mut()) else {
            panic!("the second is not let in");
        };
        assert!(poll(third.as_mut()).is_pending());
        drop(turn);
        assert!(poll(third.as_mut()).is_ready());
    }

    #[test]
    fn who_gave_up_waiting_holds_nobody_up() {
        let turns = Turns::default();
        let Poll::Ready(first) = poll(pin!(turns.take())) else {
            panic!("a free turn is not given");
        };
        {
            let mut gone = pin!(turns.take());
            assert!(poll(gone.as_mut()).is_pending());
        }
        let mut last = pin!(turns.take());
        assert!(poll(last.as_mut()).is_pending());
        drop(first);
        assert!(poll(last.as_mut()).is_ready());
        assert!(poll(pin!(turns.take())).is_ready());
    }
}
