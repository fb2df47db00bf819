//! The environment of resource scripts, as measured on the original heartbeat. Nothing of the daemon's own environment
//! is passed on.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

use super::AgentOptions;
use crate::host_config::HostConfig;

/// Where heartbeat's programs are expected if they are not found.
const LIBEXEC: &str = "/usr/libexec/heartbeat";

/// The environment that every agent gets: `HA_` and the name for each recorded parameter of `ha.cf`, as written there;
/// the paths and names that scripts rely on; and a `PATH`.
pub(super) fn for_scripts(host_config: &HostConfig, options: &AgentOptions) -> BTreeMap<String, String> {
    let config = &options.roots.config;
    let mut all = BTreeMap::new();
    let mut put = |name: &str, value: String| {
        // An environment cannot carry such a parameter.
        if !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0') {
            all.insert(name.to_owned(), value);
        }
    };
    for (name, value) in &options.parameters {
        put(&format!("HA_{name}"), value.clone());
    }
    put("HA_CURHOST", host_config.me.clone());
    put("HA_DIR", config.display().to_string());
    put("HA_FUNCS", config.join("shellfuncs").display().to_string());
    put("HA_RCDIR", config.join("rc.d").display().to_string());
    put("HA_RESOURCEDIR", options.roots.resource_d().display().to_string());
    // The tab at the end is the original's.
    put("HA_DATEFMT", "%Y/%m/%d_%T\t".to_owned());
    put("HA_LOGD", "no".to_owned());
    if let Some(fifo) = &options.fifo {
        put("HA_FIFO", fifo.display().to_string());
    }
    let programs = [LIBEXEC, "/usr/lib/heartbeat", "/usr/lib64/heartbeat"];
    let programs = programs.into_iter().find(|place| Path::new(place).is_dir()).unwrap_or(LIBEXEC);
    put("HA_BIN", programs.to_owned());
    put("HA_DOCDIR", "/usr/share/doc/heartbeat".to_owned());
    // This is the one parameter that the original's plug-ins read under another name.
    if let Some(method) = options.parameters.get("compression") {
        put("HA_COMPRESSION", method.clone());
    }
    put("HA_debug", host_config.logging.debug.to_string());
    if let Some(file) = &host_config.logging.logfile {
        put("HA_LOGFILE", file.clone());
    }
    if let Some(file) = &host_config.logging.debugfile {
        put("HA_DEBUGLOG", file.clone());
    }
    if let Some(facility) = &host_config.logging.facility {
        put("HA_LOGFACILITY", facility.clone());
    }
    put("OCF_ROOT", options.roots.ocf.display().to_string());
    put("OCF_AGENTS", options.roots.ocf.join("resource.d/heartbeat").display().to_string() + "/");
    // Scripts call heartbeat's programs without their directories.
    let more = [programs, "/usr/share/heartbeat"].map(PathBuf::from);
    let path = env::join_paths(options.roots.path.iter().chain(&more))
        .map(|path| path.to_string_lossy().into_owned());
    put("PATH", path.unwrap_or_default());
    all
}
