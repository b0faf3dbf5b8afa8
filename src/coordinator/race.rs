//! Attempts one beside another, begun in order: the first that succeeds wins.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

/// Begins the first attempt, and each further one as soon as one fails or `gap` after the one before. Returns what
/// succeeds first, or all failures in the order in which they came.
pub async fn staggered<T, E, A>(attempts: impl IntoIterator<Item = A>, gap: Duration) -> Result<T, Vec<E>>
where
    A: Future<Output = Result<T, E>>,
{
    let mut left = attempts.into_iter().peekable();
    let mut running: FuturesUnordered<A> = left.next().into_iter().collect();
    let mut failures = Vec::new();
    loop {
        tokio::select! {
            ended = running.next() => match ended {
                Some(Ok(won)) => return Ok(won),
                Some(Err(failure)) => {
                    failures.push(failure);
                    running.extend(left.next());
                }
                None => return Err(failures),
            },
            () = sleep(gap), if left.peek().is_some() => running.extend(left.next()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::future::{BoxFuture, FutureExt};

    use super::*;

    const NEVER: Duration = Duration::from_secs(3600);

    fn after(pause: Duration, ends: Result<u8, u8>) -> BoxFuture<'static, Result<u8, u8>> {
        async move {
            sleep(pause).await;
            ends
        }
        .boxed()
    }

    #[tokio::test]
    async fn one_that_hangs_is_not_waited_for() {
        let attempts = [pending().boxed(), ready(Ok(2)).boxed()];
        assert_eq!(staggered::<u8, u8, _>(attempts, Duration::from_millis(1)).await, Ok(2));
    }

    #[tokio::test]
    async fn one_that_fails_makes_room_at_once() {
        let attempts = [ready(Err(1)).boxed(), ready(Ok(2)).boxed()];
        assert_eq!(staggered(attempts, NEVER).await, Ok(2));
    }

    #[tokio::test]
    async fn the_first_has_its_time_before_the_next_begins() {
        let attempts = [after(Duration::from_millis(20), Ok(1)), ready(Ok(2)).boxed()];
        assert_eq!(staggered(attempts, NEVER).await, Ok(1));
    }

    #[tokio::test]
    async fn all_failures_are_told_in_the_order_in_which_they_came() {
        let attempts = [after(Duration::from_millis(100), Err(1)), ready(Err(2)).boxed()];
        assert_eq!(staggered(attempts, Duration::from_millis(1)).await, Err(vec![2, 1]));
        let none: [BoxFuture<'static, Result<u8, u8>>; 0] = [];
        assert_eq!(staggered(none, NEVER).await, Err(vec![]));
    }
}
