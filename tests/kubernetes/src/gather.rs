//! What a program says, kept line by line while it runs.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// What was made of lines so far, of one program or of several. Clones are the same.
#[derive(Debug)]
pub struct Gathered<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Gathered<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Gathered<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Send + 'static> Gathered<T> {
    /// Reads lines until there are no more, and keeps what `parse` makes of them.
    pub fn gather(
        &self,
        from: Option<impl Read + Send + 'static>,
        parse: impl Fn(&str) -> Option<T> + Send + 'static,
    ) {
        let into = self.clone();
        thread::spawn(move || {
            for line in from.into_iter().flat_map(|from| BufReader::new(from).lines()) {
                let Ok(line) = line else { break };
                if let Some(parsed) = parse(&line) {
                    into.so_far().push(parsed);
                }
            }
        });
    }

    /// All of it.
    pub fn so_far(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
