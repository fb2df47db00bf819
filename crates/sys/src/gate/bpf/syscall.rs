//! The bpf system call, one small function for each of its commands that the gate uses. Facts: bpf(2), linux/bpf.h.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use zerocopy::{FromBytes, Immutable, IntoBytes};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;

/// The size of the buffer for the verifier's explanation of a refusal.
const LOG_BYTES: usize = 64 * 1024;
/// The programs call no function that the kernel reserves for GPL programs.
const LICENSE: &[u8] = b"Apache-2.0 OR MIT\0";
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;

/// The shape of a map. Its layout is that of the beginning of `bpf_attr` for `BPF_MAP_CREATE`, and of `struct
/// bpf_map_info` behind its type and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct MapShape {
    /// One of the kernel's `BPF_MAP_TYPE_*` numbers.
    pub(super) kind: u32,
    /// The number of bytes of a key.
    pub(super) key: u32,
    /// The number of bytes of a value.
    pub(super) value: u32,
    /// The number of entries, at most.
    pub(super) entries: u32,
    /// A combination of `BPF_F_*` flags.
    pub(super) flags: u32,
}

impl MapShape {
    pub(super) const BPF_MAP_TYPE_HASH: u32 = 1;
    pub(super) const BPF_MAP_TYPE_ARRAY: u32 = 2;
    pub(super) const BPF_F_MMAPABLE: u32 = 1 << 10;
}

/// The part of `bpf_attr` for commands about one entry of a map.
#[derive(IntoBytes, FromBytes)]
#[repr(C)]
struct MapEntryAttr {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part of `bpf_attr` for commands about pins.
#[derive(IntoBytes, FromBytes)]
#[repr(C)]
struct PinAttr {
    path: u64,
    descriptor: u32,
    flags: u32,
}

pub(super) fn create_map(shape: MapShape, name: &str) -> io::Result<OwnedFd> {
    #[derive(IntoBytes, FromBytes)]
    #[repr(C)]
    struct MapCreateAttr {
        shape: MapShape,
        inner: u32,
        numa_node: u32,
        name: [u8; 16],
    }
    let mut create = MapCreateAttr { shape, inner: 0, numa_node: 0, name: object_name(name) };
    // SAFETY: no pointers in it.
    unsafe { call(BPF_MAP_CREATE, &mut create) }.and_then(descriptor)
}

/// The shape that the map was made with.
pub(super) fn map_shape(map: impl AsFd) -> io::Result<MapShape> {
    map_info(map).map(|(shape, _)| shape)
}

/// The map's number, which is unique in the kernel.
pub(super) fn map_number(map: impl AsFd) -> io::Result<u32> {
    map_info(map).map(|(_, number)| number)
}

fn map_info(map: impl AsFd) -> io::Result<(MapShape, u32)> {
    // struct bpf_map_info
    #[derive(FromBytes, IntoBytes)]
    #[repr(C)]
    struct RawMapInfo {
        kind: u32,
        number: u32,
        key: u32,
        value: u32,
        entries: u32,
        flags: u32,
    }
    let RawMapInfo { kind, number, key, value, entries, flags } = info(map)?;
    Ok((MapShape { kind, key, value, entries, flags }, number))
}

/// Sets an entry. The lengths of key and value must be those of the map.
pub(super) fn set(map: impl AsFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    update(map, key, value, 0)
}

/// Adds an entry; `AlreadyExists` if the key has one already.
pub(super) fn add(map: impl AsFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    const BPF_NOEXIST: u64 = 1;
    update(map, key, value, BPF_NOEXIST)
}

fn update(map: impl AsFd, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
    let shape = map_shape(&map)?;
    if (shape.key as usize, shape.value as usize) != (key.len(), value.len()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut entry =
        MapEntryAttr { map: number(&map), pad: 0, key: address(key), value: address(value), flags };
    // SAFETY: key and value are readable for as many bytes as the map says that it reads.
    unsafe { call(BPF_MAP_UPDATE_ELEM, &mut entry) }.map(drop)
}

/// The value of a key. The lengths of key and value must be those of the map.
pub(super) fn value<const BYTES: usize>(map: impl AsFd, key: &[u8]) -> io::Result<[u8; BYTES]> {
    let shape = map_shape(&map)?;
    if (shape.key as usize, shape.value as usize) != (key.len(), BYTES) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut value = [0; BYTES];
    let mut entry = MapEntryAttr {
        map: number(&map),
        pad: 0,
        key: address(key),
        value: address_mut(&mut value),
        flags: 0,
    };
    // SAFETY: the key is readable and the value writable for as many bytes as the map says.
    unsafe { call(BPF_MAP_LOOKUP_ELEM, &mut entry) }?;
    Ok(value)
}

pub(super) fn unset(map: impl AsFd, key: &[u8]) -> io::Result<()> {
    if map_shape(&map)?.key as usize != key.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut entry = MapEntryAttr { map: number(&map), pad: 0, key: address(key), value: 0, flags: 0 };
    // SAFETY: key is readable for as many bytes as the map says that it reads.
    unsafe { call(BPF_MAP_DELETE_ELEM, &mut entry) }.map(drop)
}

/// All entries of a hash map with keys and values of these lengths. An entry that is added or removed meanwhile may be
/// among them or not.
pub(super) fn entries<const KEY: usize, const VALUE: usize>(
    map: impl AsFd,
) -> io::Result<Vec<([u8; KEY], [u8; VALUE])>> {
    #[derive(IntoBytes, FromBytes)]
    #[repr(C)]
    struct MapBatchAttr {
        from: u64,
        to: u64,
        keys: u64,
        values: u64,
        count: u32,
        map: u32,
        entry_flags: u64,
        flags: u64,
    }
    let shape = map_shape(&map)?;
    if (shape.key as usize, shape.value as usize) != (KEY, VALUE) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut keys = vec![[0; KEY]; shape.entries as usize];
    let mut values = vec![[0; VALUE]; shape.entries as usize];
    // The buffers have room for all entries, so one call returns all.
    let mut next = 0u32;
    let mut batch = MapBatchAttr {
        from: 0,
        to: address_mut(next.as_mut_bytes()),
        keys: address_mut(keys.as_flattened_mut()),
        values: address_mut(values.as_flattened_mut()),
        count: shape.entries,
        map: number(&map),
        entry_flags: 0,
        flags: 0,
    };
    // SAFETY: keys and values are writable for `count` of what the map says, and `to` for a hash map's four bytes.
    match unsafe { call(BPF_MAP_LOOKUP_BATCH, &mut batch) } {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // NotFound means that there are no more entries.
        _ => {}
    }
    Ok(keys.into_iter().zip(values).take(batch.count as usize).collect())
}

/// Loads a program for network traffic. If the verifier refuses it, the error contains the last lines of the verifier's
/// log.
pub(super) fn load(program: &[[u8; 8]], name: &str) -> io::Result<OwnedFd> {
    #[derive(IntoBytes, FromBytes)]
    #[repr(C)]
    struct ProgramLoadAttr {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_bytes: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
    }
    let load = |log_level: u32, log: &mut [u8]| {
        let mut load = ProgramLoadAttr {
            kind: BPF_PROG_TYPE_SCHED_CLS,
            count: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            instructions: program.as_ptr().expose_provenance() as u64,
            license: address(LICENSE),
            log_level,
            log_bytes: if log_level == 0 { 0 } else { log.len() as u32 },
            log: if log_level == 0 { 0 } else { address_mut(log) },
            kernel_version: 0,
            flags: 0,
            name: object_name(name),
        };
        // SAFETY: the instructions are readable for eight times their count, the license ends in a zero, and the log
        // is writable for its length or not given.
        unsafe { call(BPF_PROG_LOAD, &mut load) }.and_then(descriptor)
    };
    load(0, &mut []).or_else(|error| {
        if !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EACCES)) {
            return Err(error);
        }
        let mut log = vec![0; LOG_BYTES];
        load(1, &mut log).map_err(|_| {
            let text = String::from_utf8_lossy(log.split(|&byte| byte == 0).next().unwrap_or_default());
            let tail: Vec<_> = text.lines().rev().take(4).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            io::Error::new(error.kind(), format!("{error} (the kernel's verifier: {})", tail.join("; ")))
        })
    })
}

/// Runs a program once on a packet that exists only in memory. Returns its result; `packet` is then as the program left
/// it.
pub(super) fn test_run(program: impl AsFd, packet: &mut [u8]) -> io::Result<i32> {
    #[derive(IntoBytes, FromBytes)]
    #[repr(C)]
    struct TestRunAttr {
        program: u32,
        answer: u32,
        bytes_in: u32,
        bytes_out: u32,
        packet_in: u64,
        packet_out: u64,
        repeat: u32,
        duration: u32,
    }
    let bytes = u32::try_from(packet.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let packet_address = address_mut(packet);
    let mut run = TestRunAttr {
        program: number(&program),
        answer: 0,
        bytes_in: bytes,
        bytes_out: bytes,
        packet_in: packet_address,
        packet_out: packet_address,
        repeat: 1,
        duration: 0,
    };
    // SAFETY: the packet is readable and writable for its length; the kernel copies it before it runs the program.
    unsafe { call(BPF_PROG_TEST_RUN, &mut run) }?;
    Ok(run.answer.cast_signed())
}

/// Pins an object at a path in a bpf file system, where it outlives its descriptors.
pub(super) fn pin(object: impl AsFd, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut pin = PinAttr { path: address(path.as_bytes_with_nul()), descriptor: number(&object), flags: 0 };
    // SAFETY: the path ends in a zero.
    unsafe { call(BPF_OBJ_PIN, &mut pin) }.map(drop)
}

/// Opens the object that is pinned at a path in a bpf file system.
pub(super) fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut pin = PinAttr { path: address(path.as_bytes_with_nul()), descriptor: 0, flags: 0 };
    // SAFETY: the path ends in a zero.
    unsafe { call(BPF_OBJ_GET, &mut pin) }.and_then(descriptor)
}

/// The direction of packets through an interface: the attach type of tcx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum TcxHook {
    /// The kernel's `BPF_TCX_INGRESS`: arriving packets.
    Ingress = 46, // BPF_TCX_INGRESS
    /// The kernel's `BPF_TCX_EGRESS`: departing packets.
    Egress = 47, // BPF_TCX_EGRESS
}

/// Attaches a program to an interface, in front of all other programs there, as long as the returned link lives. It
/// runs first, whatever the others answer.
pub(super) fn attach(program: impl AsFd, interface: u32, way: TcxHook) -> io::Result<OwnedFd> {
    attach_at(program, interface, way, true)
}

/// As [`attach`], in front of the other programs there or behind them.
pub(super) fn attach_at(
    program: impl AsFd,
    interface: u32,
    way: TcxHook,
    in_front: bool,
) -> io::Result<OwnedFd> {
    /// `BPF_F_BEFORE` without naming another program means in front of all.
    const BPF_F_BEFORE: u32 = 1 << 3;
    #[derive(IntoBytes, FromBytes)]
    #[repr(C)]
    struct LinkCreateAttr {
        program: u32,
        interface: u32,
        attach_type: u32,
        flags: u32,
        relative: [u32; 2],
        revision: u64,
    }
    let mut create = LinkCreateAttr {
        program: number(&program),
        interface,
        attach_type: way as u32,
        flags: if in_front { BPF_F_BEFORE } else { 0 },
        relative: [0; 2],
        revision: 0,
    };
    // SAFETY: no pointers in it.
    unsafe { call(BPF_LINK_CREATE, &mut create) }.and_then(descriptor)
}

/// As [`attach`], with the first of two equal programs that is not attached there already.
pub(super) fn attach_one_of(programs: &[OwnedFd; 2], interface: u32, way: TcxHook) -> io::Result<OwnedFd> {
    match attach(&programs[0], interface, way) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => attach(&programs[1], interface, way),
        other => other,
    }
}

/// Replaces the program of a link, without missing a packet.
pub(super) fn replace(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut update = [number(&link), number(&program), 0, 0];
    // SAFETY: no pointers in it.
    unsafe { call(BPF_LINK_UPDATE, &mut update) }.map(drop)
}

/// Takes a link off its interface at once. That also happens after its last descriptor is closed, but a little later.
pub(super) fn detach(link: impl AsFd) -> io::Result<()> {
    let mut detach = [number(&link), 0];
    // SAFETY: no pointers in it.
    unsafe { call(BPF_LINK_DETACH, &mut detach) }.map(drop)
}

/// The present state of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// The link's number, which the kernel never uses again.
    pub(super) number: u32,
    /// The interface; 0 if it is gone or the link was taken off.
    pub(super) interface: u32,
    /// One of the kernel's `BPF_TCX_*` attach types.
    pub(super) attach_type: u32,
}

/// The present state of a link of tcx; an error for other links.
pub(super) fn link_info(link: impl AsFd) -> io::Result<LinkInfo> {
    // struct bpf_link_info
    #[derive(FromBytes, IntoBytes)]
    #[repr(C)]
    struct RawLinkInfo {
        kind: u32,
        number: u32,
        program: u32,
        pad: u32,
        interface: u32,
        attach_type: u32,
    }
    const BPF_LINK_TYPE_TCX: u32 = 11;
    match info(link)? {
        RawLinkInfo { kind: BPF_LINK_TYPE_TCX, number, interface, attach_type: way, .. } => {
            Ok(LinkInfo { number, interface, attach_type: way })
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A program on an interface; they are listed in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AttachedProgram {
    pub(super) program: u32,
    /// The number of its link; 0 if it was attached without one.
    pub(super) link: u32,
}

/// The programs on an interface of the calling thread's network namespace.
pub(super) fn attached(interface: u32, way: TcxHook) -> io::Result<Vec<AttachedProgram>> {
    #[derive(IntoBytes, FromBytes)]
    #[repr(C)]
    struct ProgramQueryAttr {
        interface: u32,
        attach_type: u32,
        flags: [u32; 2],
        programs: u64,
        count: u32,
        pad: u32,
        program_flags: u64,
        links: u64,
        link_flags: u64,
        revision: u64,
    }
    /// The kernel's limit of programs on one interface (`BPF_MPROG_MAX`).
    const BPF_MPROG_MAX: usize = 64;
    let (mut programs, mut links) = ([0u32; BPF_MPROG_MAX], [0u32; BPF_MPROG_MAX]);
    let mut query = ProgramQueryAttr {
        interface,
        attach_type: way as u32,
        flags: [0; 2],
        programs: address_mut(programs.as_mut_bytes()),
        count: BPF_MPROG_MAX as u32,
        pad: 0,
        program_flags: 0,
        links: address_mut(links.as_mut_bytes()),
        link_flags: 0,
        revision: 0,
    };
    // SAFETY: programs and links are writable for `count` numbers of four bytes.
    match unsafe { call(BPF_PROG_QUERY, &mut query) } {
        // No program was ever attached there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let all = programs.into_iter().zip(links).take(query.count as usize);
    Ok(all.map(|(program, link)| AttachedProgram { program, link }).collect())
}

/// The name of a foreign program that runs before this link's program; `None` if there is none. Programs of Locum, of
/// this or another cluster, do not count: they decide only about their own addresses.
pub(super) fn foreign_in_front(link: &OwnedFd, interface: u32, way: TcxHook) -> io::Result<Option<String>> {
    let own = link_info(link)?;
    for other in attached(interface, way)? {
        if other.link == own.number {
            break;
        }
        // A program that has gone meanwhile has no name.
        let name = program_name(other.program).unwrap_or_default();
        if !name.starts_with(OWN_PREFIX) {
            return Ok(Some(if name.is_empty() { format!("number {}", other.program) } else { name }));
        }
    }
    Ok(None)
}

/// The prefix of the names of all of Locum's programs.
const OWN_PREFIX: &str = "locum_";

/// The name that a program was loaded with.
fn program_name(number: u32) -> io::Result<String> {
    // The beginning of struct bpf_prog_info, up to its name.
    #[derive(FromBytes, IntoBytes)]
    #[repr(C)]
    struct RawProgramInfo {
        kind: u32,
        number: u32,
        tag: [u8; 8],
        lengths: [u32; 2],
        code: [u64; 2],
        loaded: u64,
        user: u32,
        maps: u32,
        map_numbers: u64,
        name: [u8; 16],
    }
    let mut open = [number, 0, 0];
    // SAFETY: no pointers in it.
    let program = unsafe { call(BPF_PROG_GET_FD_BY_ID, &mut open) }.and_then(descriptor)?;
    let RawProgramInfo { name, .. } = info(program)?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// The beginning of the kernel's information about an object.
fn info<T: FromBytes + IntoBytes>(object: impl AsFd) -> io::Result<T> {
    #[derive(IntoBytes, FromBytes)]
    #[repr(C)]
    struct InfoAttr {
        object: u32,
        bytes: u32,
        address: u64,
    }
    let mut info = T::new_zeroed();
    let bytes = u32::try_from(size_of::<T>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut ask = InfoAttr { object: number(&object), bytes, address: address_mut(info.as_mut_bytes()) };
    // SAFETY: info is writable for the bytes given, and any content of it is valid.
    unsafe { call(BPF_OBJ_GET_INFO_BY_FD, &mut ask) }?;
    Ok(info)
}

/// The bpf system call. Fields that a command does not know must be zero, and so are fields that are left out.
///
/// # Safety
/// Pointers in `attributes` must be valid for what the command does with them.
unsafe fn call<T: IntoBytes + FromBytes>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    let bytes = attributes.as_mut_bytes();
    // SAFETY: the attributes are readable and writable for the length given; the caller vouches for the pointers in
    // them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, bytes.as_mut_ptr(), bytes.len()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn descriptor(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: the kernel has just given us this descriptor, close-on-exec, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number as RawFd) })
}

fn number(object: &impl AsFd) -> u32 {
    let borrowed: BorrowedFd<'_> = object.as_fd();
    borrowed.as_raw_fd().cast_unsigned()
}

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr().expose_provenance() as u64
}

fn address_mut(bytes: &mut [u8]) -> u64 {
    bytes.as_mut_ptr().expose_provenance() as u64
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// At most 15 bytes and a zero.
fn object_name(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (position, byte) in bytes.iter_mut().take(15).zip(name.bytes()) {
        *position = byte;
    }
    bytes
}
