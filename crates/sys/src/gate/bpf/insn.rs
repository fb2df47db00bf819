//! A small assembler for eBPF (RFC 9669): instructions with labels, only the subset that the gate needs.

use std::os::fd::{AsRawFd, BorrowedFd};

// Classes, sources, sizes, modes and operations: RFC 9669, sections 3 to 5.
const BPF_LD: u8 = 0x00;
const BPF_LDX: u8 = 0x01;
const BPF_ST: u8 = 0x02;
const BPF_STX: u8 = 0x03;
const BPF_JMP: u8 = 0x05;
const BPF_ALU64: u8 = 0x07;
const BPF_X: u8 = 0x08;
const BPF_MEM: u8 = 0x60;
const BPF_ATOMIC: u8 = 0xc0;
const BPF_MOV: u8 = 0xb0;
const BPF_ADD: u8 = 0x00;
const BPF_JA: u8 = 0x00;
const BPF_CALL: u8 = 0x80;
const BPF_EXIT: u8 = 0x90;
/// In the source register of a 64-bit constant: the constant is the descriptor of a map.
const BPF_PSEUDO_MAP_FD: u8 = 1;

/// A register. `R0`: results; `R1` to `R5`: arguments, lost in a call; `R6` to `R9`: preserved; `R10`: end of the
/// stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

/// The width of a load or a store.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum AccessSize {
    Word = 0x00,   // BPF_W
    Half = 0x08,   // BPF_H
    Byte = 0x10,   // BPF_B
    Double = 0x18, // BPF_DW
}

/// The condition of a jump. All comparisons are unsigned and of 64 bits.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum JumpCondition {
    Equal = 0x10,      // BPF_JEQ
    NotLess = 0x30,    // BPF_JGE
    AnyBitOf = 0x40,   // BPF_JSET
    NotEqual = 0x50,   // BPF_JNE
    NotGreater = 0xb0, // BPF_JLE
}

/// A jump target in the program; see [`Assembler::label`] and [`Assembler::here`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JumpLabel(usize);

/// Assembles a program, instruction by instruction.
#[derive(Default)]
pub(super) struct Assembler {
    instructions: Vec<[u8; 8]>,
    positions: Vec<Option<usize>>,
    /// Jumps whose offset is filled in at the end.
    jumps: Vec<(usize, JumpLabel)>,
}

impl Assembler {
    /// Makes a label that has no position yet.
    pub(super) fn label(&mut self) -> JumpLabel {
        self.positions.push(None);
        JumpLabel(self.positions.len() - 1)
    }

    /// Sets the label's position to the next instruction.
    pub(super) fn here(&mut self, label: JumpLabel) {
        self.positions[label.0] = Some(self.instructions.len());
    }

    pub(super) fn copy(&mut self, to: Register, from: Register) {
        self.push(BPF_ALU64 | BPF_MOV | BPF_X, to as u8, from as u8, 0, 0);
    }

    /// `to = value`, sign-extended
    pub(super) fn set(&mut self, to: Register, value: i32) {
        self.push(BPF_ALU64 | BPF_MOV, to as u8, 0, 0, value);
    }

    /// `to = value`, of 64 bits
    pub(super) fn set_wide(&mut self, to: Register, value: u64) {
        let [low, high] = halves(value);
        self.wide(to, 0, low, high);
    }

    pub(super) fn add(&mut self, to: Register, value: i32) {
        self.push(BPF_ALU64 | BPF_ADD, to as u8, 0, 0, value);
    }

    pub(super) fn map(&mut self, to: Register, map: BorrowedFd<'_>) {
        self.wide(to, BPF_PSEUDO_MAP_FD, map.as_raw_fd(), 0);
    }

    /// `to = *(from + offset)`
    pub(super) fn load(&mut self, size: AccessSize, to: Register, from: Register, offset: i16) {
        self.push(BPF_LDX | BPF_MEM | size as u8, to as u8, from as u8, offset, 0);
    }

    /// `*(to + offset) = from`
    pub(super) fn store(&mut self, size: AccessSize, to: Register, offset: i16, from: Register) {
        self.push(BPF_STX | BPF_MEM | size as u8, to as u8, from as u8, offset, 0);
    }

    /// `*(to + offset) = value`
    pub(super) fn store_value(&mut self, size: AccessSize, to: Register, offset: i16, value: i32) {
        self.push(BPF_ST | BPF_MEM | size as u8, to as u8, 0, offset, value);
    }

    /// `*(to + offset) += from`, of 8 bytes, atomically
    pub(super) fn add_atomically(&mut self, to: Register, offset: i16, from: Register) {
        self.push(
            BPF_STX | BPF_ATOMIC | AccessSize::Double as u8,
            to as u8,
            from as u8,
            offset,
            BPF_ADD.into(),
        );
    }

    /// Jumps to the label if the condition holds for register and value; the value is sign-extended.
    pub(super) fn jump_if(&mut self, left: Register, condition: JumpCondition, value: i32, label: JumpLabel) {
        self.jumps.push((self.instructions.len(), label));
        self.push(BPF_JMP | condition as u8, left as u8, 0, 0, value);
    }

    /// Jumps to the label if the condition holds for the registers.
    pub(super) fn jump_if_register(
        &mut self,
        left: Register,
        condition: JumpCondition,
        right: Register,
        label: JumpLabel,
    ) {
        self.jumps.push((self.instructions.len(), label));
        self.push(BPF_JMP | BPF_X | condition as u8, left as u8, right as u8, 0, 0);
    }

    /// Jumps to the label in any case.
    pub(super) fn jump(&mut self, label: JumpLabel) {
        self.jumps.push((self.instructions.len(), label));
        self.push(BPF_JMP | BPF_JA, 0, 0, 0, 0);
    }

    /// `R0 = helper(R1, …)`
    pub(super) fn call(&mut self, helper: i32) {
        self.push(BPF_JMP | BPF_CALL, 0, 0, 0, helper);
    }

    /// Ends the program with the result in `R0`.
    pub(super) fn exit(&mut self) {
        self.push(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    }

    /// Finishes the program: eight bytes an instruction.
    ///
    /// # Panics
    /// A label has no position or is too far away: an error in the program's source, which every test finds.
    pub(super) fn assemble(mut self) -> Vec<[u8; 8]> {
        for (at, label) in self.jumps {
            let target = self.positions[label.0].expect("a label that is jumped to has a place");
            // Counted from the instruction after the jump.
            let distance = target.cast_signed() - at.cast_signed() - 1;
            let distance = i16::try_from(distance).expect("a gate's program is short");
            self.instructions[at][2..4].copy_from_slice(&distance.to_ne_bytes());
        }
        self.instructions
    }

    fn wide(&mut self, to: Register, kind: u8, low: i32, high: i32) {
        self.push(BPF_LD | AccessSize::Double as u8, to as u8, kind, 0, low);
        self.push(0, 0, 0, 0, high);
    }

    fn push(&mut self, code: u8, to: u8, from: u8, offset: i16, value: i32) {
        // The two registers share a byte, in an order that depends on the machine's byte order.
        let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        let mut bytes = [code, registers, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
        bytes[4..].copy_from_slice(&value.to_ne_bytes());
        self.instructions.push(bytes);
    }
}

/// The low and the high half.
fn halves(value: u64) -> [i32; 2] {
    let half = |shift: u32| ((value >> shift) & u64::from(u32::MAX)) as u32;
    [half(0).cast_signed(), half(32).cast_signed()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn bytes_as_in_the_standard() {
        let mut a = Assembler::default();
        let (back, end) = (a.label(), a.label());
        a.here(back);
        a.set(Register::R0, -1);
        a.load(AccessSize::Word, Register::R1, Register::R6, 16);
        a.jump_if(Register::R1, JumpCondition::Equal, 8, end);
        a.jump(back);
        a.set_wide(Register::R2, 0x0102_0304_8586_8788);
        a.here(end);
        a.exit();
        assert_eq!(
            a.assemble(),
            [
                [0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
                [0x61, 0x61, 16, 0, 0, 0, 0, 0],
                [0x15, 1, 3, 0, 8, 0, 0, 0],
                [0x05, 0, 0xfc, 0xff, 0, 0, 0, 0],
                [0x18, 2, 0, 0, 0x88, 0x87, 0x86, 0x85],
                [0, 0, 0, 0, 4, 3, 2, 1],
                [0x95, 0, 0, 0, 0, 0, 0, 0],
            ]
        );
    }
}
