"""The job of this module is: the libvirt definition of the lab's guest, the same text on both
hosts."""

from xml.sax.saxutils import escape

IMAGES = "/var/lib/libvirt/images"
OBSERVER = "/run/havm-observer"
# 200,000 stamps of 4 KiB, sparse: more than an hour of stamping
DISK_BYTES = 200_000 * 4096
# Enough for a test of a few minutes, and quick to copy as a whole
SMALL_DISK_BYTES = 64 << 20


def disk_path(vm: str) -> str:
    return f"{IMAGES}/{vm}.img"


def domain_xml(
    vm: str, guest: dict, *, disk: str | None = None, disk_extra: str = "", devices_extra: str = ""
) -> str:
    """`guest` is {"kernel", "initramfs", "command_line", "accelerator"}. The extras are for tests
    of refusals."""
    kind = "kvm" if guest["accelerator"] == "kvm" else "qemu"
    return f"""<domain type='{kind}'>
  <name>{escape(vm)}</name>
  <memory unit='MiB'>128</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{escape(guest["kernel"])}</kernel>
    <initrd>{escape(guest["initramfs"])}</initrd>
    <cmdline>{escape(guest["command_line"])}</cmdline>
  </os>
  <features><acpi/></features>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='none' discard='unmap'/>
      <source file='{escape(disk or disk_path(vm))}'/>
      <target dev='vda' bus='virtio'/>{disk_extra}
    </disk>{devices_extra}
    <controller type='usb' index='0' model='none'/>
    <serial type='unix'>
      <source mode='connect' path='{OBSERVER}/{escape(vm)}.sock'/>
      <target port='0'/>
    </serial>
    <memballoon model='none'/>
  </devices>
</domain>
"""
