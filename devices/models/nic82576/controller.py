"""The physical function of the 82576 and what happens to a frame between its queues and the wire.

Facts are those that the Linux drivers `igb` and `igbvf` and the model in QEMU agree on; what only
memory of the data sheet says is named in the documentation of the model. Left out: flash, I/O BAR,
power management, time stamping, DCA, flow control, management firmware, serial interfaces.
"""

from __future__ import annotations

from functools import partial

from devices.capabilities import add_aer, add_ari
from devices.clock import Clock
from devices.dma import DmaPort
from devices.function import Identity, PciFunction
from devices.models.nic82576.classifier import Classifier
from devices.models.nic82576.filters import Filters
from devices.models.nic82576.interrupts import VF_VECTORS, CauseRegisters, vf_cause
from devices.models.nic82576.mailbox import Mailboxes
from devices.models.nic82576.nvm import Nvm, nvm_image
from devices.models.nic82576.phy import Phy
from devices.models.nic82576.physical_driver import PhysicalDriver
from devices.models.nic82576.receive import Packet, ReceiveQueue
from devices.models.nic82576.register_bank import RegisterBank
from devices.models.nic82576.registers import (
    CTRL,
    CTRL_DEVICE_RESET,
    CTRL_EXT,
    CTRL_EXT_PF_RESET_DONE,
    CTRL_MASTER_DISABLE,
    CTRL_PHY_RESET,
    CTRL_RESET,
    CTRL_VLAN_MODE,
    DTXSWC,
    DTXSWC_LOOPBACK,
    EIAC,
    EIAM,
    ICR_LINK,
    ICR_OUT_OF_SYNC,
    LVMMC,
    MRQC,
    MRQC_VMDQ,
    POOLS,
    QUEUE_ENABLE,
    QUEUES,
    RAH_VALID,
    RCTL,
    RCTL_ENABLE,
    RCTL_LOOPBACK,
    RCTL_STRIP_CRC,
    RPLOLR,
    RXDCTL,
    STATUS,
    STATUS_31,
    STATUS_FULL_DUPLEX,
    STATUS_GIGABIT,
    STATUS_IOV,
    STATUS_LINK_UP,
    STATUS_MASTER_ENABLED,
    STATUS_PHY_RESET,
    STATUS_VFS,
    TCTL,
    TCTL_PAD_SHORT,
    TDT,
    TORL,
    TPR,
    TXDCTL,
    VFRE,
    VFTE,
    VMOLR,
    VMOLR_RSS,
    VMOLR_STRIP_CRC,
    VMOLR_STRIP_VLAN,
    VMVIR,
    VMVIR_ALWAYS,
    VMVIR_NEVER,
    VTIVAR,
    VTIVAR_MISC,
    WVBR,
    address_entry,
)
from devices.models.nic82576.semaphores import Semaphores
from devices.models.nic82576.statistics import Statistics
from devices.models.nic82576.transmit import TransmitQueue
from devices.models.nic82576.virtual_function import VF_BAR, Nic82576Vf
from devices.network.frames import (
    ETHERNET_HEADER,
    FCS,
    SHORTEST,
    station_address,
)
from devices.network.host_links import HostLink
from devices.network.link import LinkPartner
from devices.network.partner_names import find_partner
from devices.sriov import Sriov

IDENTITY = Identity(
    vendor_id=0x8086, device_id=0x10C9, class_code=0x020000, revision=1, interrupt_pin=1
)
VF_DEVICE_ID = 0x10CA
REGISTERS_SIZE = 0x2_0000
MSIX_SIZE = 0x4000
PF_VECTORS = 10
TURN_NANOSECONDS = 1000
MAC = "02:00:82:57:60:00"


class Nic82576(PciFunction):
    """The controller; ``attach`` a link partner, and 500 ms later the link is up. ``mac`` is
    written ``02:00:82:57:60:00``.

    ``first_vf_offset`` and ``vf_stride`` place the requester ids of up to eight virtual functions;
    boards without ``ari`` that have them on the next bus are 180h and 2. ``link`` names a partner
    of :mod:`devices.network.partner_names` that is there from the beginning. If it is ``driven``
    the model has the driver too, and guests may only have virtual functions.
    """

    sriov: Sriov

    def __init__(
        self,
        mac: str = MAC,
        *,
        total_vfs: int = POOLS,
        first_vf_offset: int = 0x80,
        vf_stride: int = 2,
        ari: bool = True,
        link: str = "",
        driven: bool = False,
    ) -> None:
        address = station_address(mac)
        if not 1 <= total_vfs <= POOLS:
            raise ValueError(f"total_vfs: {total_vfs} is not in 1..{POOLS}")
        super().__init__(IDENTITY)
        self._ari = ari
        self._add_capabilities(total_vfs, first_vf_offset, vf_stride)
        self.partner: LinkPartner | None = None
        self.bank = bank = RegisterBank()
        self._values = values = bank.values
        self.nvm = Nvm(bank, nvm_image(address))
        self.interrupts = CauseRegisters(bank, self, self.sriov)
        self.mailboxes = Mailboxes(bank, self.interrupts)
        self.filters = Filters(bank)
        self.phy = Phy(bank, self, self._link_changed)
        self.classifier = Classifier(bank, self.filters)
        self.statistics = Statistics(bank)
        Semaphores(bank)
        self._receive = [ReceiveQueue(number, values) for number in range(QUEUES)]
        self._transmit = [TransmitQueue(number, bank, self._send) for number in range(QUEUES)]
        bank.on_read[STATUS] = self._status
        bank.on_write[STATUS] = self._write_status
        bank.on_write[CTRL] = self._control
        bank.on_write[CTRL_EXT] = self._extended_control
        bank.on_write[TDT] = self._tail_written
        bank.on_write[TXDCTL] = self._transmit_control
        self.bars[0].place(0, REGISTERS_SIZE, bank)
        self.at_reset.append(self._power_on)
        self._power_on()
        if driven:
            self.driven = True
            self._driver = PhysicalDriver(bank, address)
            self.mailboxes.on_news = self._driver.service
            self.sriov.on_change = self._driver.start
        self._link = link
        self._connect()

    @property
    def clock(self) -> Clock:
        """The time by which it works, and its link partner if it was made here."""
        return self._clock

    @clock.setter
    def clock(self, clock: Clock) -> None:
        self._clock = clock
        if getattr(self, "_link", ""):
            self._connect()

    def _connect(self) -> None:
        """Have the partner that ``link`` names."""
        if isinstance(self.partner, HostLink):
            self.partner.close()
        if self._link:
            self.attach(find_partner(self._link, self, self._clock))

    def attach(self, partner: LinkPartner | None) -> None:
        """What is sent goes to ``partner`` from now on; None is a cable pulled out."""
        self.partner = partner
        self.phy.attach(partner is not None)

    def receive(self, frame: bytes) -> None:
        """A frame, without FCS, arrived from the link partner."""
        phy = self.phy
        if phy.link and not phy.loopback:
            self._take(frame, None)

    def send(self, vector: int) -> None:
        """Signal a vector of the physical function."""
        if self.msix is not None and self.msix.enabled:
            self.msix.notify(vector)
        elif self.msi is not None:
            self.msi.notify(0)

    def send_virtual(self, vf: int, vector: int) -> None:
        """Signal a vector of a virtual function."""
        msix = self.sriov.functions[vf].msix
        if msix is not None:
            msix.notify(vector)

    def drive_pin(self, level: bool) -> None:
        """Drive the interrupt pin, unless there are messages."""
        messages = (self.msix is not None and self.msix.enabled) or (
            self.msi is not None and self.msi.enabled
        )
        self.set_intx(level and not messages)

    def reset_virtual(self, index: int) -> None:
        """A virtual function was reset, by its driver or on its function level."""
        values, shift = self._values, vf_cause(index)
        own = (1 << VF_VECTORS) - 1 << shift
        self.bank.written += 1
        for queue in (index, index + POOLS):
            values[RXDCTL + queue] &= ~QUEUE_ENABLE
            values[TXDCTL + queue] &= ~QUEUE_ENABLE
            self._transmit[queue].reset()
        for register in (VFRE, VFTE):
            values[register] &= ~(1 << index)
        for register in (EIAC, EIAM):
            values[register] &= ~own
        self.interrupts.mask_extended(own)
        self.interrupts.take_extended(own)
        values[VTIVAR + index] = values[VTIVAR_MISC + index] = 0
        self.mailboxes.virtual_reset(index)

    def _add_capabilities(self, total_vfs: int, first_offset: int, stride: int) -> None:
        self.add_bar(0, REGISTERS_SIZE)
        self.add_bar(1, REGISTERS_SIZE)
        self.add_bar(3, MSIX_SIZE)
        self.add_msi(maskable=True, offset=0x50)
        self.add_msix(PF_VECTORS, table=(3, 0), pending=(3, 0x2000), offset=0x70)
        self.add_pci_express(offset=0xA0)
        add_aer(self.config, offset=0x100)
        if self._ari:
            add_ari(self.config, offset=0x150)
        self.sriov = Sriov(
            self,
            total_vfs=total_vfs,
            first_offset=first_offset,
            stride=stride,
            vf_device_id=VF_DEVICE_ID,
            vf_bars={0: (VF_BAR, True), 3: (MSIX_SIZE, True)},
            make=self._make_virtual,
            offset=0x160,
        )

    def _make_virtual(self, sriov: Sriov, index: int) -> Nic82576Vf:
        return Nic82576Vf(sriov, index, self, ari=self._ari)

    def _power_on(self) -> None:
        self._start(everything=True)
        self.phy.reset()

    def _start(self, *, everything: bool) -> None:
        """As after power-on, or after a software reset."""
        self.bank.reset(everything=everything)
        low, high = address_entry(0)
        self._values[low] = int.from_bytes(self.nvm.mac[:4], "little")
        self._values[high] = int.from_bytes(self.nvm.mac[4:], "little") | RAH_VALID
        self.filters.forget()
        self.classifier.forget()
        self.interrupts.reset()
        self.set_intx(False)
        for queue in self._transmit:
            queue.reset()

    def _status(self, _: int) -> int:
        values = self._values
        return (
            STATUS_FULL_DUPLEX
            | STATUS_GIGABIT
            | STATUS_31
            | STATUS_LINK_UP * self.phy.link
            | values[STATUS] & STATUS_PHY_RESET
            | STATUS_MASTER_ENABLED * (not values[CTRL] & CTRL_MASTER_DISABLE)
            | len(self.sriov.functions) << STATUS_VFS
            | STATUS_IOV * bool(self.sriov.functions)
        )

    def _write_status(self, _: int, value: int) -> None:
        self._values[STATUS] &= value | ~STATUS_PHY_RESET

    def _control(self, _: int, value: int) -> None:
        if value & CTRL_PHY_RESET:
            self._values[STATUS] |= STATUS_PHY_RESET
            self.phy.reset()
        if value & (CTRL_RESET | CTRL_DEVICE_RESET):
            self._start(everything=False)

    def _extended_control(self, _: int, value: int) -> None:
        if value & CTRL_EXT_PF_RESET_DONE:
            self.mailboxes.physical_reset_done()

    def _tail_written(self, queue: int, _: int) -> None:
        self._run(queue)

    def _transmit_control(self, queue: int, value: int) -> None:
        if value & QUEUE_ENABLE:
            self._run(queue)
        else:
            self._transmit[queue].reset()

    def _link_changed(self) -> None:
        self.interrupts.cause(ICR_LINK)

    def _dma(self, queue: int) -> DmaPort:
        """Whose requests those of a queue are: its virtual function's, if that exists."""
        functions = self.sriov.functions
        pool = queue & POOLS - 1
        return functions[pool].dma if pool < len(functions) else self.dma

    def _run(self, queue: int) -> None:
        transmit = self._transmit[queue]
        if transmit.run(self._dma(queue)):
            self.interrupts.queue(queue, transmit=True)
        if transmit.unfinished:
            self._clock.after(TURN_NANOSECONDS, partial(self._run, queue))

    def _send(self, queue: int, frame: bytes) -> None:
        """A frame leaves a queue: to other pools, to the wire, or nowhere."""
        values, pool = self._values, queue & POOLS - 1
        vmdq = values[MRQC] & MRQC_VMDQ
        if vmdq:
            insertion = values[VMVIR + pool]
            if insertion & VMVIR_ALWAYS:
                frame = self._transmit[queue].tagged(frame, insertion & 0xFFFF)
            elif insertion & VMVIR_NEVER and self.filters.vlan(frame) is not None:
                frame = frame[:12] + frame[16:]
            if self.filters.spoofs(pool, frame):
                self._spoofed(queue)
                return
        if len(frame) < SHORTEST and values[TCTL] & TCTL_PAD_SHORT:
            frame = frame.ljust(SHORTEST, b"\0")
        self.statistics.sent(frame, pool if self.sriov.functions else None)
        if self.phy.loopback or values[RCTL] & RCTL_LOOPBACK:
            self._take(frame, None)
            return
        if vmdq and values[DTXSWC] & DTXSWC_LOOPBACK:
            self._take(frame, pool)
            if not frame[0] & 1 and self.filters.known(frame[:6]):
                return
        if self.partner is not None and self.phy.link:
            self.partner.receive(frame)

    def _spoofed(self, queue: int) -> None:
        """A pool sent what is not its own: the frame is dropped, and software told."""
        self._values[WVBR] |= 1 << queue
        self._values[LVMMC] |= 1 << 31 | queue << 24
        self.interrupts.cause(ICR_OUT_OF_SYNC)

    def _take(self, frame: bytes, sender: int | None) -> None:
        """A frame goes through the filters and into the queues."""
        values = self._values
        if not values[RCTL] & RCTL_ENABLE or values[CTRL] & CTRL_MASTER_DISABLE:
            return
        if len(frame) < SHORTEST:
            if len(frame) < ETHERNET_HEADER:
                return
            frame = frame.ljust(SHORTEST, b"\0")
        length = len(frame) + FCS
        values[TPR] += 1
        values[TORL] += length
        if values[MRQC] & MRQC_VMDQ:
            pools = self.filters.pools(frame, sender)
            if sender is not None and not values[DTXSWC] >> 16 + sender & 1:
                pools &= ~(1 << sender)
            if pools:
                self.statistics.received(frame, length)
                self._distribute(frame, pools)
        elif self.filters.accepts(frame):
            self.statistics.received(frame, length)
            packet, queue = self.classifier.packet(
                frame, values[CTRL] & CTRL_VLAN_MODE, values[RCTL] & RCTL_STRIP_CRC
            )
            self._deliver(packet, queue)

    def _distribute(self, frame: bytes, pools: int) -> None:
        """Copies for each pool, with what each wants taken out."""
        values = self._values
        several = pools & pools - 1
        for pool in range(POOLS):
            if not pools >> pool & 1:
                continue
            options = values[RPLOLR if several else VMOLR + pool]
            packet, spread = self.classifier.packet(
                frame, options & VMOLR_STRIP_VLAN, options & VMOLR_STRIP_CRC
            )
            spreads = spread & 1 and values[VMOLR + pool] & VMOLR_RSS
            self.statistics.received_by(pool, frame)
            self._deliver(packet, pool + POOLS if spreads else pool)

    def _deliver(self, packet: Packet, queue: int) -> None:
        if self._receive[queue].deliver(packet, self._dma(queue)):
            self.interrupts.queue(queue, transmit=False)
