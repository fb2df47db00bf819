//! A room: a thread that has entered namespaces of its own, and runs jobs there.
//!
//! Sockets, files and children made in a room belong to its namespaces and can be used from any thread afterwards. So
//! nothing else in the lab has to enter a namespace. When the room is dropped, its thread ends. Children that asked to
//! die with their parent end with it, and so do namespaces that nothing else holds.

use std::{
    io,
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
};

type Job = Box<dyn FnOnce() + Send>;

pub(crate) struct Room {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Room {
    /// Opens a room that first calls `enter`. The thread begins in the namespaces of the thread that calls this.
    pub(crate) fn open<E: Send + 'static>(
        enter: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) -> io::Result<Result<Self, E>> {
        let (jobs, orders) = channel::<Job>();
        let (entered, news) = channel();
        let thread = thread::Builder::new().name("room".into()).spawn(move || {
            let result = enter();
            let inside = result.is_ok();
            let _ = entered.send(result);
            if inside {
                orders.iter().for_each(|job| job());
            }
        })?;
        let room = Self { jobs: Some(jobs), thread: Some(thread) };
        Ok(news.recv().expect("a room's thread answers before it ends").map(|()| room))
    }

    /// Does `job` in the room and waits for it. In the room of a node, a job must not start threads: the kernel does
    /// not let a process start a thread in another pid namespace.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        let job = Box::new(move || {
            let _ = done.send(job());
        });
        self.jobs
            .as_ref()
            .expect("open until dropped")
            .send(job)
            .expect("the room's thread runs until dropped");
        result.recv().expect("a job in a room does not panic")
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
