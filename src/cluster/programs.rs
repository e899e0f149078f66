//! Finds PostgreSQL's server programs on the machine.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::ClusterError;
use super::owner::bare;

/// Folders in which distributions keep a folder per version: Debian, Red Hat, Homebrew on ARM and on Intel.
const VERSIONED: [&str; 4] = ["/usr/lib/postgresql", "/usr", "/opt/homebrew/opt", "/usr/local/opt"];
/// Where PostgreSQL's own `make install` puts it.
const UNVERSIONED: &str = "/usr/local/pgsql/bin";

/// The folder with `initdb`, `pg_ctl` and `postgres`.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// The first of: PATH, `pg_config --bindir`, the usual folders with the highest version first.
    pub(super) fn find() -> Result<Programs, ClusterError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self::among(
            std::env::split_paths(&path)
                .chain(std::iter::once_with(by_pg_config).flatten())
                .chain(std::iter::once_with(usual).flatten()),
        )
    }

    fn among(mut folders: impl Iterator<Item = PathBuf>) -> Result<Programs, ClusterError> {
        folders
            .find(|folder| {
                ["initdb", "pg_ctl", "postgres"].iter().all(|program| folder.join(program).is_file())
            })
            .map(|folder| Programs { folder })
            .ok_or(ClusterError::NoPrograms)
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }

    pub(super) fn pg_ctl(&self) -> PathBuf {
        self.folder.join("pg_ctl")
    }
}

fn by_pg_config() -> Option<PathBuf> {
    let output = bare(Path::new("pg_config")).arg("--bindir").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(text.trim()))
}

fn usual() -> Vec<PathBuf> {
    let mut versioned: Vec<(u32, PathBuf)> = VERSIONED
        .iter()
        .flat_map(|parent| {
            let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
            entries.filter_map(|entry| Some((version(&entry.file_name())?, entry.path().join("bin"))))
        })
        .collect();
    versioned.sort_by(|a, b| b.cmp(a));
    versioned.into_iter().map(|(_, folder)| folder).chain([PathBuf::from(UNVERSIONED)]).collect()
}

/// The major version in a folder's name: `17`, `9.6`, `pgsql-17`, `postgresql@17`.
fn version(name: &OsStr) -> Option<u32> {
    let name = name.to_str()?;
    let number = name.strip_prefix("pgsql-").or_else(|| name.strip_prefix("postgresql@")).unwrap_or(name);
    number.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_named_after_versions_in_several_ways() {
        for (name, expected) in [
            ("17", Some(17)),
            ("9.6", Some(9)),
            ("pgsql-16", Some(16)),
            ("postgresql@18", Some(18)),
            ("bin", None),
            ("", None),
        ] {
            assert_eq!(version(OsStr::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn only_a_folder_with_all_the_programs_will_do() {
        let [none, some, all] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let folders = [none.path(), some.path(), all.path()].map(Path::to_owned);
        std::fs::write(folders[1].join("postgres"), "").unwrap();
        let error = Programs::among(folders.clone().into_iter()).unwrap_err().to_string();
        assert!(error.contains("package `postgresql`"), "{error}");
        for program in ["initdb", "pg_ctl", "postgres"] {
            std::fs::write(folders[2].join(program), "").unwrap();
        }
        assert_eq!(Programs::among(folders.clone().into_iter()).unwrap().folder, folders[2]);
    }
}
