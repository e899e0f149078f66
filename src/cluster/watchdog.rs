//! A shell that outlives us: it waits until the pipe from us closes, which it does however we end, then stops
//! the server and removes its files.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};

use super::ClusterError;
use super::owner::Owner;

/// Arguments: `pg_ctl`, the folder. A server that was just being started may come up, or leave files, only
/// after the first try.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
read -r _
for try in 1 2 3 4 5; do
  "$1" stop --silent --wait --mode=immediate --pgdata="$2/data" >/dev/null 2>&1
  rm -rf -- "$2" 2>/dev/null
  [ -e "$2/data" ] || exit 0
  sleep 1
done
"#;

#[derive(Debug)]
pub(super) struct Watchdog {
    shell: Child,
}

impl Watchdog {
    /// To be started before the server is, so that there is no moment at which it could be left behind. Standard
    /// error stays open until all is gone: who reads it to its end knows.
    pub(super) fn start(pg_ctl: &Path, folder: &Path, owner: &Owner) -> Result<Watchdog, ClusterError> {
        let mut command = owner.command(Path::new("/bin/sh"), Path::new("/"));
        command.arg("-c").arg(SCRIPT).arg("watchdog").arg(pg_ctl).arg(folder);
        // In a group of its own, so that Ctrl-C in the terminal does not reach it.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let shell = command.spawn().map_err(ClusterError::system("run `/bin/sh`"))?;
        Ok(Watchdog { shell })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // There is nobody to tell if it failed.
        let _ = self.shell.wait();
    }
}
