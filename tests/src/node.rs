//! A `headwater run` process: start, kill, restart, ask.

use crate::{files::TestDir, free_port, tools, wait_for};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// One node with its own directory and ports, which stay the same over restarts.
#[derive(Debug)]
pub struct Node {
    dir: TestDir,
    child: Option<Child>,
    /// MQTT port.
    pub mqtt: u16,
    /// Kafka port.
    pub kafka: u16,
    /// HTTP port.
    pub http: u16,
}

impl Node {
    /// Writes a config of three loopback listeners plus `more` (TOML), starts the node and waits until it is ready.
    ///
    /// # Panics
    /// When it does not start; its log is in the message.
    #[must_use]
    pub fn start(name: &str, more: &str) -> Self {
        let mut node = Self::prepare(name, more);
        node.start_again();
        node
    }

    /// The same without starting it.
    ///
    /// # Panics
    /// When the config cannot be written.
    #[must_use]
    pub fn prepare(name: &str, more: &str) -> Self {
        let dir = TestDir::new(name);
        let node =
            Self { dir, child: None, mqtt: free_port(), kafka: free_port(), http: free_port() };
        let toml = format!(
            "[storage]\ndir = {:?}\n\n\
             [[listener]]\nprotocol = \"mqtt\"\nbind = \"127.0.0.1:{}\"\n\n\
             [[listener]]\nprotocol = \"kafka\"\nbind = \"127.0.0.1:{}\"\n\n\
             [[listener]]\nprotocol = \"http\"\nbind = \"127.0.0.1:{}\"\n\n{more}\n",
            node.data_dir(),
            node.mqtt,
            node.kafka,
            node.http
        );
        std::fs::write(node.config_file(), toml).expect("the test's directory is writable");
        node
    }

    /// The node's data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The node's config file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("headwater.toml")
    }

    /// What the node has logged, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn log_file(&self) -> File {
        let path = self.dir.path().join("log");
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .expect("the test's directory is writable")
    }

    /// Starts the process (again), on the same ports and data, and waits until it is ready.
    ///
    /// # Panics
    /// When it is not ready within a minute.
    pub fn start_again(&mut self) {
        self.spawn();
        self.wait_until_ready();
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    /// When it is not within a minute, or ends.
    pub fn wait_until_ready(&mut self) {
        wait_for("the node to be ready", Duration::from_secs(60), || {
            if let Some(status) = self.exited() {
                panic!("the node ended with {status}:\n{}", self.log());
            }
            (self.get("/health/ready")?.0 == 200).then_some(())
        });
    }

    /// Starts the process (again) without waiting.
    ///
    /// # Panics
    /// When the program is missing.
    pub fn spawn(&mut self) {
        let mut program = Command::new(tools::headwater());
        program.args(["run", "-c"]).arg(self.config_file());
        self.spawn_as(program);
    }

    /// Starts the process with its data directory on a filesystem of its own in memory, `size` large, of which a file
    /// `ballast` takes a part. Both as for mount(8) and head(1). See [`Node::inside`].
    ///
    /// # Panics
    /// When the program is missing.
    pub fn spawn_on_small_disk(&mut self, size: &str, ballast: &str) {
        std::fs::create_dir_all(self.data_dir()).expect("the test's directory is writable");
        let script = "mount -t tmpfs -o size=$1 tmpfs $2 && head -c $3 /dev/zero >$2/ballast && exec $4 run -c $5";
        let mut unshare = Command::new("unshare");
        // A mount namespace of its own; whoever is not root becomes it inside a user namespace.
        unshare.args(["--mount", "--user", "--map-root-user", "sh", "-c", script, "sh", size]);
        unshare.arg(self.data_dir()).arg(ballast).arg(tools::headwater()).arg(self.config_file());
        self.spawn_as(unshare);
    }

    /// A path in the data directory as the process sees it.
    ///
    /// # Panics
    /// When the node does not run.
    #[must_use]
    pub fn inside(&self, name: &str) -> PathBuf {
        let data = self.data_dir();
        let below_root = data.strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.pid().expect("the node runs")))
            .join(below_root)
            .join(name)
    }

    fn spawn_as(&mut self, mut program: Command) {
        assert!(self.child.is_none(), "the node runs already");
        let child = program
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(self.log_file())
            .stderr(self.log_file())
            .spawn()
            .expect("the program starts");
        self.child = Some(child);
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its exit status, if it has ended by itself.
    ///
    /// # Panics
    /// When the system cannot say.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().expect("the child is ours"))
    }

    /// kill -9, as a power cut does to a process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        child.kill().expect("the child is ours");
        child.wait().expect("the child is ours");
    }

    /// SIGTERM; waits for the end and gives its exit status.
    ///
    /// # Panics
    /// When it does not end within half a minute.
    pub fn stop(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("the node runs");
        tools::run(Command::new("kill").arg("-TERM").arg(child.id().to_string()));
        let status = wait_for("the node to end", Duration::from_secs(30), || {
            child.try_wait().expect("the child is ours")
        });
        self.child = None;
        status
    }

    /// Status code and body of an HTTP GET; `None` while nobody answers.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Some((status, body.to_owned()))
    }

    /// The sum of a metric over all its label sets; 0 when it is absent.
    ///
    /// # Panics
    /// When the node does not answer.
    #[must_use]
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics").expect("the node answers");
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(series, _)| series.split('{').next() == Some(name))
            .filter_map(|(_, value)| value.parse::<f64>().ok())
            .sum()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Already gone is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the node's log:\n{}", self.log());
        }
    }
}
