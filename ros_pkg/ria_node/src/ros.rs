//! The ROS side of the process: context, node, the thread that spins it, its clock and its log.
//!
//! One thread owns the node. Whatever needs it mutably is sent there as a job; publishers and answers to services work
//! from anywhere. A panic inside r2r or rcl ends the thread and is reported: the node is then left as it is, since
//! nothing can be said of its state.

use std::any::Any;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use r2r::builtin_interfaces::msg::Time;
use r2r::{Clock, Node};
use tokio::sync::oneshot;

use crate::convert::time;

/// Name of the node, and of its logger as long as no namespace is known.
pub const NODE: &str = "overlay";

/// How long a job may wait; also the longest time from a signal to the end.
const TURN: Duration = Duration::from_millis(100);

/// Why there is no node.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The arguments, or the environment, make no sense to rcl.
    #[error("ROS does not start with these arguments and this environment: {0}")]
    Context(String),
    /// The middleware does not come up now; it may later.
    #[error("the ROS node could not be created: {0}")]
    Node(String),
}

type Job = Box<dyn FnOnce(&mut Node) + Send>;

/// The thread that spins a node.
pub struct Spinner {
    jobs: mpsc::Sender<Job>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Creates context and node. Namespace, name and parameters come with the program's arguments.
pub fn create_node() -> Result<Node, StartError> {
    let context = guarded(r2r::Context::create).map_err(StartError::Context)?;
    let context = context.map_err(|error| StartError::Context(error.to_string()))?;
    guarded(|| Node::create(context, NODE, ""))
        .and_then(|node| node.map_err(|error| error.to_string()))
        .map_err(StartError::Node)
}

/// Runs something of r2r, which panics where others return an error.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(panic_text)
}

fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned())).unwrap_or_else(|| "panic".into())
}

impl Spinner {
    /// Starts to spin. The receiver gets a text when the thread ends by itself, which it only does in a panic.
    pub fn start(mut node: Node) -> std::io::Result<(Self, oneshot::Receiver<String>)> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let stop = Arc::new(AtomicBool::new(false));
        let (failed, failure) = oneshot::channel();
        let stopped = Arc::clone(&stop);
        let work = move || match guarded(|| spin(&mut node, &queue, &stopped)) {
            // Leaves the ROS graph in good order: others see it go at once.
            Ok(()) => drop(guarded(|| drop(node))),
            Err(panic) => {
                std::mem::forget(node);
                let _ = failed.send(panic);
            }
        };
        let thread = std::thread::Builder::new().name("ros".into()).spawn(work)?;
        Ok((Self { jobs, stop, thread }, failure))
    }

    /// Does something with the node, on its thread. `None` when that has ended.
    pub async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Node) -> T + Send + 'static,
    ) -> Option<T> {
        let (done, result) = oneshot::channel();
        let job = move |node: &mut Node| drop(done.send(work(node)));
        self.jobs.send(Box::new(job)).ok()?;
        result.await.ok()
    }

    /// Ends the node and waits for that.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
    }
}

fn spin(node: &mut Node, jobs: &mpsc::Receiver<Job>, stop: &AtomicBool) {
    /// A wait that fails returns at once; without a floor that would take a whole core.
    const FLOOR: Duration = Duration::from_millis(1);
    while !stop.load(Ordering::Relaxed) {
        for job in jobs.try_iter() {
            job(node);
        }
        let began = Instant::now();
        node.spin_once(TURN);
        if began.elapsed() < FLOOR {
            std::thread::sleep(FLOOR);
        }
    }
}

/// The node's clock: simulated time when ROS says so.
#[derive(Clone)]
pub struct RosClock {
    clock: Arc<Mutex<Clock>>,
    simulated: bool,
}

impl RosClock {
    /// Of a node; `simulated` as its parameter says.
    pub fn of(node: &mut Node, simulated: bool) -> r2r::Result<Self> {
        if simulated {
            node.get_time_source().enable_sim_time(node)?;
        }
        Ok(Self { clock: node.get_ros_clock(), simulated })
    }

    /// Now.
    pub fn now(&self) -> Time {
        let now = self.clock.lock().unwrap_or_else(PoisonError::into_inner).get_now();
        now.map_or_else(|_| time(unix_now()), |now| Clock::to_builtin_time(&now))
    }

    /// The stamp for something that the agent says happened at a time of the system's clock.
    pub fn stamp(&self, unix: Time) -> Time {
        if self.simulated { self.now() } else { unix }
    }
}

/// Where a panic was, in one line: it is reported where it is caught, and a backtrace says nothing to who runs a robot.
pub fn shorten_panics() {
    std::panic::set_hook(Box::new(|panic| {
        // A closed terminal is no reason to panic again.
        let _ = writeln!(std::io::stderr(), "{panic}");
    }));
}

/// Seconds since 1970.
pub fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_text() {
        assert_eq!(guarded(|| 7), Ok(7));
        assert_eq!(guarded(|| panic!("rcl said no")), Err::<(), _>("rcl said no".into()));
        assert_eq!(guarded(|| panic!("rcl said {}", -1)), Err::<(), _>("rcl said -1".into()));
    }
}
