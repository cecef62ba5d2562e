//! What callers do with a simulated disk: each call of the contract, with the faults that were planned for it.

use super::*;
use crate::disk::{self, Disk, File};

impl Disk for SimDisk {
    type File = SimFile;
    type Lock = SimLock;

    fn create(&self, path: &str) -> io::Result<SimFile> {
        let mut state = self.0.borrow_mut();
        state.begin("create", path)?;
        if state.dir(disk::parent(path))?.current.contains_key(base(path)) {
            return Err(error(ErrorKind::AlreadyExists, "create", path));
        }
        let inode = state.inodes.len();
        let add = Some(base(path).to_owned());
        state.change(disk::parent(path), Change { remove: None, add, node: Node::File(inode) })?;
        state.inodes.push(Inode { path: path.to_owned(), ..Inode::default() });
        Ok(SimFile { disk: self.clone(), inode, path: path.to_owned() })
    }

    fn open(&self, path: &str) -> io::Result<SimFile> {
        let inode = self.0.borrow().find(path)?;
        Ok(SimFile { disk: self.clone(), inode, path: path.to_owned() })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.begin("rename", from)?;
        let node = Node::File(state.find(from)?);
        let (remove, add) = (Some(base(from).to_owned()), Some(base(to).to_owned()));
        if disk::parent(from) != disk::parent(to) {
            // Two directories are made durable apart, so a crash may leave both names or none; we never need it.
            return Err(error(ErrorKind::CrossesDevices, "rename", from));
        }
        state.change(disk::parent(to), Change { remove, add, node })
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.begin("remove", path)?;
        let node = Node::File(state.find(path)?);
        state.change(disk::parent(path), Change { remove: Some(base(path).to_owned()), add: None, node })
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.begin("create directory", path)?;
        if path.is_empty() || state.dir(disk::parent(path))?.current.contains_key(base(path)) {
            return Err(error(ErrorKind::AlreadyExists, "create directory", path));
        }
        let add = Some(base(path).to_owned());
        state.change(disk::parent(path), Change { remove: None, add, node: Node::Dir })?;
        state.dirs.insert(path.to_owned(), Dir::default());
        Ok(())
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.begin("remove directory", path)?;
        if !state.dir(path)?.current.is_empty() {
            return Err(error(ErrorKind::DirectoryNotEmpty, "remove directory", path));
        }
        let remove = Some(base(path).to_owned());
        state.change(disk::parent(path), Change { remove, add: None, node: Node::Dir })?;
        state.dirs.remove(path);
        Ok(())
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let planned = state.next_sync.take();
        let fault = state.begin("sync directory", path)?.or(planned);
        state.struck += u64::from(fault.is_some());
        let dir = state.dirs.get_mut(path).ok_or_else(|| error(ErrorKind::NotFound, "sync directory", path))?;
        dir.pending.clear();
        match fault {
            None => dir.durable = dir.current.clone(),
            Some(fault) => {
                if fault == Fault::SyncDropsPages {
                    dir.current = dir.durable.clone();
                }
                return Err(io::Error::other(format!("sync directory {path}: injected error")));
            }
        }
        Ok(())
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        Ok(self.0.borrow().dir(path)?.current.keys().cloned().collect())
    }

    fn lock(&self, path: &str) -> io::Result<SimLock> {
        if !self.0.borrow_mut().locks.insert(path.to_owned()) {
            return Err(error(ErrorKind::WouldBlock, "lock", path));
        }
        Ok(SimLock { disk: self.clone(), path: path.to_owned() })
    }
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.0.borrow();
        let bytes = &state.inodes[self.inode].current;
        let from = (offset as usize).min(bytes.len());
        let read = buffer.len().min(bytes.len() - from);
        buffer[..read].copy_from_slice(&bytes[from..from + read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.0.borrow_mut();
        state.begin("write", &self.path)?;
        let length = offset + bytes.len() as u64;
        let room = self.room(&state);
        // Like a real file system, it writes what fits and then fails.
        let fits = (length.min(room.max(offset)) - offset) as usize;
        let inode = &mut state.inodes[self.inode];
        if fits > 0 {
            let write = Write { offset, bytes: bytes[..fits].to_vec(), length: offset + fits as u64 };
            write.apply(&mut inode.current, &Fate::Applied);
            inode.pending.push(write);
        }
        if fits < bytes.len() { Err(error(ErrorKind::StorageFull, "write", &self.path)) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.borrow_mut();
        let planned = state.next_sync.take();
        let fault = state.begin("sync", &self.path)?.or(planned);
        state.struck += u64::from(fault.is_some());
        let keeps = state.keeps_overwritten;
        let inode = &mut state.inodes[self.inode];
        let pending = std::mem::take(&mut inode.pending);
        match fault {
            None => {
                // Replaying the writes, instead of copying what is read, keeps lost pages lost.
                for write in pending {
                    if keeps {
                        inode.keep(&write);
                    }
                    write.apply(&mut inode.durable, &Fate::Applied);
                }
                Ok(())
            }
            Some(fault) => {
                if fault == Fault::SyncDropsPages {
                    inode.current = inode.durable.clone();
                }
                Err(io::Error::other(format!("sync {}: injected error", self.path)))
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.borrow().inodes[self.inode].current.len() as u64)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.0.borrow_mut();
        state.begin("allocate", &self.path)?;
        if bytes > self.room(&state) {
            return Err(error(ErrorKind::StorageFull, "allocate", &self.path));
        }
        let inode = &mut state.inodes[self.inode];
        if bytes > inode.current.len() as u64 {
            let write = Write { offset: 0, bytes: Vec::new(), length: bytes };
            write.apply(&mut inode.current, &Fate::Applied);
            inode.pending.push(write);
        }
        Ok(())
    }
}

impl SimFile {
    /// How long this file may become.
    fn room(&self, state: &State) -> u64 {
        let length = state.inodes[self.inode].current.len() as u64;
        match state.capacity {
            None => u64::MAX,
            Some(capacity) => length.saturating_add(capacity.saturating_sub(state.used())),
        }
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.0.borrow_mut().locks.remove(&self.path);
    }
}
