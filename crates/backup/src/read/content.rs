//! A file's bytes, in order.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use repository::blob::BlobKind;
use repository::id::Id;
use repository::index::Index;
use repository::tree::Node;
use repository::{BlobReader, Error, Repository};

/// Pieces that are fetched ahead, for each thread.
const AHEAD: usize = 2;

/// Why a content could not be handed out whole.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// A piece is missing or damaged.
    #[error(transparent)]
    Repository(#[from] Error),
    /// Whoever takes the bytes said no.
    #[error(transparent)]
    Write(#[from] io::Error),
    /// The pieces are not as long as the file.
    #[error("the file has {actual} bytes in the repository, but its entry says {expected}")]
    Size {
        /// What the entry says.
        expected: u64,
        /// What the pieces have.
        actual: u64,
    },
}

/// Writes a file's content. Each piece is verified before its first byte is written; several are fetched at once.
pub fn write_content(
    repository: &Repository,
    index: &Index,
    reader: &mut BlobReader<'_>,
    node: &Node,
    into: &mut dyn Write,
) -> Result<(), ContentError> {
    let content = node.content.as_deref().unwrap_or_default();
    let written = match content {
        // Small files are many: no threads for them.
        [_, _, _, ..] => write_ahead(repository, index, content, into)?,
        few => {
            let mut bytes = Vec::new();
            let mut written = 0;
            for id in few {
                reader.load(BlobKind::Data, id, &mut bytes)?;
                into.write_all(&bytes)?;
                written += bytes.len() as u64;
            }
            written
        }
    };
    if written == node.size { Ok(()) } else { Err(ContentError::Size { expected: node.size, actual: written }) }
}

type Piece = Result<Vec<u8>, Error>;

fn write_ahead(
    repository: &Repository,
    index: &Index,
    content: &[Id],
    into: &mut dyn Write,
) -> Result<u64, ContentError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(content.len());
    // Each order carries the channel its piece goes to; these wait in the order of the file.
    let (orders, to_do) = sync_channel::<(Id, SyncSender<Piece>)>(threads * AHEAD);
    let to_do: Mutex<Receiver<_>> = Mutex::new(to_do);
    let spare: Mutex<Vec<Vec<u8>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut reader = repository.reader(index);
                loop {
                    let order = to_do.lock().expect("no panic while orders are taken").recv();
                    let Ok((id, answer)) = order else { return };
                    let mut bytes = spare.lock().expect("no panic while buffers are held").pop().unwrap_or_default();
                    let piece = reader.load(BlobKind::Data, &id, &mut bytes).map(|()| bytes);
                    // Nobody waits for it any more if the writing failed.
                    let _ = answer.send(piece);
                }
            });
        }
        // Dropped at the end of this closure, however it ends: then the threads go home.
        let orders = orders;
        let mut waiting: VecDeque<Receiver<Piece>> = VecDeque::new();
        let mut ids = content.iter();
        let mut written = 0;
        loop {
            while waiting.len() < threads * AHEAD {
                let Some(id) = ids.next() else { break };
                let (answer, piece) = sync_channel(1);
                orders.send((*id, answer)).expect("the threads wait for orders");
                waiting.push_back(piece);
            }
            let Some(next) = waiting.pop_front() else { return Ok(written) };
            let bytes = next.recv().expect("each order is answered")?;
            into.write_all(&bytes)?;
            written += bytes.len() as u64;
            spare.lock().expect("no panic while buffers are held").push(bytes);
        }
    })
}
