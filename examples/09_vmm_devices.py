# SPDX-License-Identifier: Apache-2.0
"""Devices of a small virtual machine monitor: ids, MMIO ranges and PCI BARs, hot-unplug, and a saved machine.

What rust-vmm's vm-allocator is for. Interrupt numbers come from a range of ids, memory-mapped registers from one
address space, and base address registers (BARs) of PCI devices from another, each naturally aligned, large ones
from the top down. A device that is unplugged gives everything back, and the next one fits into its place. Then the
machine is saved as JSON, and goes on elsewhere with the addresses that its guest knows.

python examples/09_vmm_devices.py
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from allocators import AddressAllocator, AllocPolicy, IdAllocator, RangeInclusive, ResourceNotAvailable

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass
class Device:
    """What a device has of the machine."""

    name: str
    irq: int
    registers: RangeInclusive | None = None
    bars: list[RangeInclusive] = field(default_factory=list)


class Machine:
    """Hands out interrupts and addresses to devices."""

    def __init__(self) -> None:
        self.irqs = IdAllocator(5, 23)  # the legacy ones below 5 are taken
        self.mmio = AddressAllocator(0xD000_0000, 16 * MIB)
        self.bars = AddressAllocator(64 * GIB, 8 * GIB)

    def plug(self, name: str, *bar_sizes: int) -> Device:
        """Add a device; nothing is taken when something of it does not fit."""
        device = Device(name, self.irqs.allocate_id())
        try:
            device.registers = self.mmio.allocate(4 * KIB, 4 * KIB)
            for size in bar_sizes:  # a BAR is aligned to its size: the guest finds the size by that
                policy = AllocPolicy.LAST_MATCH if size >= GIB else AllocPolicy.FIRST_MATCH
                device.bars.append(self.bars.allocate(size, size, policy))
        except ResourceNotAvailable:
            self.unplug(device)
            raise
        return device

    def unplug(self, device: Device) -> None:
        """Take everything back."""
        self.irqs.free_id(device.irq)
        if device.registers is not None:
            self.mmio.free(device.registers)
        for bar in device.bars:
            self.bars.free(bar)

    def save(self) -> str:
        """Return all of it as JSON."""
        return json.dumps({name: getattr(self, name).to_dict() for name in ("irqs", "mmio", "bars")})

    @classmethod
    def load(cls, text: str) -> Machine:
        """Make one that goes on where the other was saved."""
        saved = json.loads(text)
        machine = cls()
        machine.irqs = IdAllocator.from_dict(saved["irqs"])
        machine.mmio = AddressAllocator.from_dict(saved["mmio"])
        machine.bars = AddressAllocator.from_dict(saved["bars"])
        return machine


def show(device: Device) -> None:
    """Print a line."""
    bars = ", ".join(f"{bar.start:#x} ({bar.length // KIB} KiB)" for bar in device.bars)
    assert device.registers is not None
    print(f"{device.name:6} irq {device.irq:2}  registers {device.registers.start:#x}  BARs {bars or '-'}")


def main() -> None:
    """Plug, unplug, save, load."""
    machine = Machine()
    disk = machine.plug("disk", 16 * KIB)
    net = machine.plug("net", 128 * KIB, 16 * KIB)
    gpu = machine.plug("gpu", 16 * MIB, 2 * GIB)
    for device in (disk, net, gpu):
        show(device)

    machine.unplug(net)
    wifi = machine.plug("wifi", 128 * KIB)
    show(wifi)
    print(f"wifi is where net was: {(wifi.irq, wifi.bars[0]) == (net.irq, net.bars[0])}")

    before = machine.mmio.ranges(), machine.bars.ranges(), machine.irqs.ids()
    try:
        machine.plug("huge", 64 * KIB, 16 * GIB)
    except ResourceNotAvailable as error:
        print(f"huge does not fit: {error}")
    print(f"and took nothing: {before == (machine.mmio.ranges(), machine.bars.ranges(), machine.irqs.ids())}")

    other = Machine.load(machine.save())
    print(f"saved and loaded: {other.bars.ranges() == machine.bars.ranges()}")
    there, here = other.plug("usb", 64 * KIB), machine.plug("usb", 64 * KIB)
    show(there)
    print(f"both machines give the next device the same place: {there == here}")


if __name__ == "__main__":
    main()
