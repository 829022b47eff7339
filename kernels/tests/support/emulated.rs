//! A device that runs the CUDA kernels on the processor, in a process of its own: kernels/cu/emulate.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use penstock_kernels::cuda::Dtype;
use penstock_kernels::cuda::driver::{Driver, Epilogue, Launch, MatrixProduct, Work};
use penstock_kernels::{Activation, KernelError, reference};

/// The sanitizers end the process with the place of the fault; a fault of the kernels fails the test.
const FLAGS: [&str; 8] = [
    "-std=c++17",
    "-O1",
    "-g1",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
];

/// Compiles the kernels for the processor, unless these very sources have been compiled before.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PROGRAM
        .get_or_init(compile)
        .as_ref()
        .unwrap_or_else(|reason| panic!("{reason}"))
}

fn compile() -> Result<PathBuf, String> {
    // The tests of other crates include this file as well.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/cu");
    let mut sources: Vec<PathBuf> = [folder.clone(), folder.join("emulate")]
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).expect("the sources are there"))
        .map(|entry| entry.expect("the sources can be listed").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|e| ["cu", "cuh", "h", "cpp"].iter().any(|known| e == *known))
        })
        .collect();
    sources.sort();
    let mut hasher = DefaultHasher::new();
    hasher.write(FLAGS.concat().as_bytes());
    for source in &sources {
        hasher.write(&std::fs::read(source).expect("a source can be read"));
    }
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cuda-emulator-{:x}", hasher.finish()));
    if !program.exists() {
        let fresh = program.with_extension(std::process::id().to_string());
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        let made = Command::new(&compiler)
            .args(FLAGS)
            .args([
                folder.join("emulate/device.cpp"),
                folder.join("emulate/kernels.cpp"),
            ])
            .arg("-o")
            .arg(&fresh)
            .status();
        match made {
            Err(e) => return Err(format!("{compiler}, the C++ compiler, cannot be started: {e}")),
            Ok(status) if !status.success() => {
                return Err(format!("{compiler} did not compile the kernels"));
            }
            Ok(_) => {}
        }
        std::fs::rename(&fresh, &program).expect("the program can be renamed");
    }
    Ok(program)
}

struct Process {
    child: Child,
    to: BufWriter<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Process {
    fn say(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.to
                .write_all(part)
                .expect("the emulated device ended; its reason is above");
        }
    }

    fn hear(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.to
            .flush()
            .and_then(|()| self.from.read_exact(&mut bytes))
            .expect("the emulated device ended; its reason is above");
        bytes
    }

    fn read(&mut self, address: u64, bytes: usize) -> Vec<u8> {
        self.say(&[b"r", &address.to_ne_bytes(), &(bytes as u64).to_ne_bytes()]);
        self.hear(bytes)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        let count = bytes.len() as u64;
        self.say(&[b"w", &address.to_ne_bytes(), &count.to_ne_bytes(), bytes]);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Emulated {
    process: Arc<Mutex<Process>>,
    dtype: Dtype,
    /// Hashes, without addresses, of the work that ran outside of a graph.
    started: HashSet<u64>,
    tally: Arc<Mutex<Tally>>,
    /// Whether recording fails.
    refuses: bool,
}

/// Counts of the calls of a device.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Launches and products one by one.
    pub started: usize,
    /// Graphs that were made, or refused.
    pub recorded: usize,
    /// Times that one was started.
    pub replayed: usize,
}

/// Kind of a piece of work: a device prepares something when it meets a kind for the first time.
fn kind_of(work: &Work) -> u64 {
    let mut hasher = DefaultHasher::new();
    match work {
        Work::Launch(launch) => (&launch.kernel, launch.shared).hash(&mut hasher),
        Work::Product(p) => (p.rows, p.inp, p.out_cols, p.epilogue).hash(&mut hasher),
    }
    hasher.finish()
}

impl Emulated {
    pub fn new(dtype: Dtype) -> Self {
        let mut child = Command::new(program())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the emulated device starts");
        let to = BufWriter::new(child.stdin.take().expect("piped"));
        let from = BufReader::new(child.stdout.take().expect("piped"));
        let process = Arc::new(Mutex::new(Process { child, to, from }));
        Self {
            process,
            dtype,
            started: HashSet::new(),
            tally: Arc::default(),
            refuses: false,
        }
    }

    /// The same without room for a graph.
    pub fn refusing(mut self) -> Self {
        self.refuses = true;
        self
    }

    /// Counts of the calls of this device and those beside it.
    pub fn tally(&self) -> Arc<Mutex<Tally>> {
        Arc::clone(&self.tally)
    }

    fn tally_mut(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().expect("no test has panicked with it")
    }

    /// Another executor of the same device, with memory in common.
    pub fn beside(&self) -> Self {
        Self {
            process: Arc::clone(&self.process),
            dtype: self.dtype,
            started: HashSet::new(),
            tally: Arc::clone(&self.tally),
            refuses: self.refuses,
        }
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Process> {
        self.process.lock().expect("no test has panicked with it")
    }

    fn run_launch(&self, launch: &Launch) {
        let Launch {
            kernel,
            grid,
            threads,
            shared,
            args,
            ..
        } = launch;
        let mut process = self.process();
        process.say(&[b"l", &(kernel.len() as u64).to_ne_bytes(), kernel.as_bytes()]);
        for number in [grid.0, grid.1, *threads, *shared] {
            process.say(&[&number.to_ne_bytes()]);
        }
        process.say(&[&(args.len() as u64).to_ne_bytes(), args]);
        process.hear(1);
    }

    fn run_product(&self, product: &MatrixProduct) {
        let dtype = self.dtype;
        let mut process = self.process();
        let mut read = |address, count: usize| {
            let mut values = Vec::new();
            dtype.decode(&process.read(address, count * dtype.bytes()), &mut values);
            values
        };
        let x = read(product.x, product.rows * product.inp);
        let weight = read(product.weight, product.out_cols * product.inp);
        let bias = read(product.bias, product.out_cols);
        let activation = match product.epilogue {
            Epilogue::Bias => Activation::None,
            Epilogue::BiasRelu => Activation::Relu,
            Epilogue::BiasGeluTanh => Activation::GeluTanh,
        };
        let out = reference::linear(&x, &weight, Some(&bias), product.inp, activation);
        let mut bytes = Vec::new();
        dtype.encode(&out, &mut bytes);
        process.write(product.out, &bytes);
    }
}

pub struct Memory {
    process: Arc<Mutex<Process>>,
    address: u64,
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Ok(mut process) = self.process.lock() {
            let _ = process.to.write_all(b"f");
            let _ = process.to.write_all(&self.address.to_ne_bytes());
        }
    }
}

/// A place that batches are posted to.
pub struct Inbox {
    memory: Memory,
    bytes: usize,
    /// Launches may still read the posted bytes.
    is_read: bool,
}

impl Driver for Emulated {
    type Memory = Memory;
    type Inbox = Inbox;
    type Outbox = Vec<u8>;
    type Graph = Vec<Work>;

    fn allocate(&self, bytes: usize) -> Result<Memory, KernelError> {
        let mut process = self.process();
        process.say(&[b"a", &(bytes as u64).to_ne_bytes()]);
        let answer = process.hear(8).try_into().expect("eight bytes");
        Ok(Memory {
            process: Arc::clone(&self.process),
            address: u64::from_ne_bytes(answer),
        })
    }

    fn address(&self, memory: &Memory) -> u64 {
        memory.address
    }

    fn store(&self, memory: &Memory, bytes: &[u8]) -> Result<(), KernelError> {
        self.process().write(memory.address, bytes);
        Ok(())
    }

    fn inbox(&self, bytes: usize) -> Result<Inbox, KernelError> {
        Ok(Inbox {
            memory: self.allocate(bytes)?,
            bytes,
            is_read: false,
        })
    }

    fn post(&mut self, inbox: &mut Inbox, bytes: &[u8]) -> Result<u64, KernelError> {
        assert!(!inbox.is_read, "posted to where launches may still read");
        inbox.is_read = true;
        self.post_in_turn(inbox, bytes)
    }

    /// A launch that reads it from now on meets numbers that no table has.
    fn release(&mut self, inbox: &mut Inbox) -> Result<(), KernelError> {
        inbox.is_read = false;
        let nothing = vec![0xff; inbox.bytes];
        self.process().write(inbox.memory.address, &nothing);
        Ok(())
    }

    fn post_in_turn(&mut self, inbox: &mut Inbox, bytes: &[u8]) -> Result<u64, KernelError> {
        self.process().write(inbox.memory.address, bytes);
        Ok(inbox.memory.address)
    }

    fn inbox_address(&self, inbox: &Inbox) -> u64 {
        inbox.memory.address
    }

    fn launch(&mut self, launch: &Launch) -> Result<(), KernelError> {
        self.tally_mut().started += 1;
        self.started.insert(kind_of(&Work::Launch(launch.clone())));
        self.run_launch(launch);
        Ok(())
    }

    fn multiply(&mut self, product: &MatrixProduct) -> Result<(), KernelError> {
        self.tally_mut().started += 1;
        self.started.insert(kind_of(&Work::Product(*product)));
        self.run_product(product);
        Ok(())
    }

    fn record(&mut self, work: &[Work]) -> Result<Vec<Work>, KernelError> {
        self.tally_mut().recorded += 1;
        for work in work {
            let known = self.started.contains(&kind_of(work));
            assert!(known, "a device that records cannot prepare {work:?} any more");
        }
        if self.refuses {
            return Err(KernelError::OutOfMemory {
                device: "the emulated device".to_owned(),
                bytes: work.len(),
            });
        }
        Ok(work.to_vec())
    }

    fn replay(&mut self, graph: &Vec<Work>, _: &dyn Display) -> Result<(), KernelError> {
        self.tally_mut().replayed += 1;
        for work in graph {
            match work {
                Work::Launch(launch) => self.run_launch(launch),
                Work::Product(product) => self.run_product(product),
            }
        }
        Ok(())
    }

    fn outbox(&self, bytes: usize) -> Result<Vec<u8>, KernelError> {
        Ok(Vec::with_capacity(bytes))
    }

    fn fetch(&mut self, memory: &Memory, bytes: usize, outbox: &mut Vec<u8>) -> Result<(), KernelError> {
        *outbox = self.process().read(memory.address, bytes);
        Ok(())
    }

    fn has_arrived(&self, _: &Vec<u8>) -> bool {
        true
    }

    fn wait<'a>(&mut self, outbox: &'a mut Vec<u8>) -> Result<&'a [u8], KernelError> {
        Ok(outbox)
    }
}
