// SPDX-License-Identifier: GPL-2.0
/*
 * emulated-gpu: a PCI host bridge in software with one function on it that answers as an NVIDIA GPU.
 *
 * It lets the real driver load, bind and unload on a machine without one; the GPU itself does nothing. The function
 * lies on a bus of its own; its configuration space is an array in this module. Its BARs lie in memory that the
 * kernel was told to leave alone (memmap=512M$0x60000000 on the command line), so that a driver can map them; the
 * first hold what this module wrote there: the registers that name the chip. Removing the module is a hot-unplug.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/sizes.h>
#include <linux/string.h>
#include <asm/pci.h>

#define CLASS_3D	0x030200
#define CLASS_BRIDGE	0x068000

struct chip {
	const char *name;
	u16 device;		/* PCI device id */
	u16 subdevice;
	u16 id;			/* architecture and implementation as the chip's own registers tell */
	u8 revision;
	u32 class;		/* PCI class; 0: that of a GPU */
};

/* PCI ids as in the pci.ids database; chip ids as the driver's PMC_BOOT registers name them. */
static const struct chip chips[] = {
	{ "k80",  0x102d, 0x106c, 0x0f2, 0xa1 },
	{ "v100", 0x1db1, 0x1212, 0x140, 0xa1 },
	{ "t4",   0x1eb8, 0x12a2, 0x164, 0xa1 },
	{ "a100", 0x20b0, 0x144e, 0x170, 0xa1 },
	{ "a40",  0x2235, 0x145a, 0x172, 0xa1 },
	{ "h100", 0x2330, 0x16c1, 0x180, 0xa1 },
	{ "b200", 0x2901, 0x1999, 0x1a0, 0xa1 },
	{ "nvswitch", 0x22a3, 0x1796, 0x0, 0xa1, CLASS_BRIDGE },
};

static char *chip = "a100";
module_param(chip, charp, 0444);
MODULE_PARM_DESC(chip, "k80, v100, t4, a100, a40, h100, b200 or nvswitch");
static ushort device;
module_param(device, ushort, 0444);
MODULE_PARM_DESC(device, "PCI device id, in place of the chip's");
static uint boot0;
module_param(boot0, uint, 0444);
MODULE_PARM_DESC(boot0, "first chip register (BAR0 + 0), in place of the chip's");
static uint boot42;
module_param(boot42, uint, 0444);
MODULE_PARM_DESC(boot42, "second chip register (BAR0 + 0xa00), in place of the chip's");
static uint domain = 1;
module_param(domain, uint, 0444);
MODULE_PARM_DESC(domain, "PCI domain");
static uint bus = 1;
module_param(bus, uint, 0444);
MODULE_PARM_DESC(bus, "PCI bus number");
static uint irq = 11;
module_param(irq, uint, 0444);
MODULE_PARM_DESC(irq, "interrupt number that the function claims to have");
static ulong base = 0x60000000;
module_param(base, ulong, 0444);
MODULE_PARM_DESC(base, "start of the reserved memory: 512 MiB, aligned to 256 MiB, below 4 GiB");

#define BAR1_SIZE	SZ_256M
#define BAR3_SIZE	SZ_32M
#define BAR0_SIZE	SZ_16M
#define WINDOW_SIZE	(BAR1_SIZE + BAR3_SIZE + BAR0_SIZE)
#define BAR0_OFFSET	(BAR1_SIZE + BAR3_SIZE)

#define CONFIG_SIZE	256
#define CAP_PM		0x60
#define CAP_EXP		0x78

/* NV_PMC_BOOT_0 and NV_PMC_BOOT_42: where the chip id and the revision stand in each. */
#define BOOT0_OFFSET	0x0
#define BOOT42_OFFSET	0xa00
#define BOOT0(id, rev)	(((u32)(id) << 20) | (rev))
#define BOOT42(id, rev)	(((u32)(id) << 20) | ((u32)(rev) << 12))

static u8 config[CONFIG_SIZE];		/* configuration space */
static u8 writable[CONFIG_SIZE];	/* which of its bits a write may change */

static struct resource window = { .name = "emulated GPU", .flags = IORESOURCE_MEM };
static struct resource bus_range = { .name = "emulated GPU bus", .flags = IORESOURCE_BUS };
static struct pci_sysdata sysdata;
static struct pci_bus *root_bus;

static const struct chip *find_chip(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(chips); i++)
		if (!strcmp(chips[i].name, name))
			return &chips[i];
	return NULL;
}

static void put(int at, int size, u32 value, u32 mask)
{
	int i;

	for (i = 0; i < size; i++) {
		config[at + i] = value >> (8 * i);
		writable[at + i] = mask >> (8 * i);
	}
}

static void put_bar(int nr, u64 address, u64 size, u32 flags)
{
	int at = PCI_BASE_ADDRESS_0 + 4 * nr;
	u64 mask = ~(size - 1);

	put(at, 4, (u32)address | flags, (u32)mask);
	if (flags & PCI_BASE_ADDRESS_MEM_TYPE_64)
		put(at + 4, 4, address >> 32, mask >> 32);
}

static void fill_config(const struct chip *c)
{
	u32 wide = PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH;

	put(PCI_VENDOR_ID, 2, PCI_VENDOR_ID_NVIDIA, 0);
	put(PCI_DEVICE_ID, 2, device ?: c->device, 0);
	put(PCI_COMMAND, 2, PCI_COMMAND_MEMORY,
	    PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
	put(PCI_STATUS, 2, PCI_STATUS_CAP_LIST, 0);
	put(PCI_CLASS_REVISION, 4, (c->class ?: CLASS_3D) << 8 | c->revision, 0);
	put(PCI_CACHE_LINE_SIZE, 1, 0, 0xff);
	put(PCI_SUBSYSTEM_VENDOR_ID, 2, PCI_VENDOR_ID_NVIDIA, 0);
	put(PCI_SUBSYSTEM_ID, 2, c->subdevice, 0);
	put(PCI_CAPABILITY_LIST, 1, CAP_PM, 0);
	/* The interrupt pin stays 0: there is nothing to route. plug() gives the function its number. */
	put(PCI_INTERRUPT_LINE, 1, irq, 0xff);

	put_bar(0, base + BAR0_OFFSET, BAR0_SIZE, 0);
	put_bar(1, base, BAR1_SIZE, wide);
	put_bar(3, base + BAR1_SIZE, BAR3_SIZE, wide);

	put(CAP_PM, 1, PCI_CAP_ID_PM, 0);
	put(CAP_PM + PCI_CAP_LIST_NEXT, 1, CAP_EXP, 0);
	put(CAP_PM + PCI_PM_PMC, 2, 3, 0);
	put(CAP_PM + PCI_PM_CTRL, 2, PCI_PM_CTRL_NO_SOFT_RESET, PCI_PM_CTRL_STATE_MASK);

	put(CAP_EXP, 1, PCI_CAP_ID_EXP, 0);
	put(CAP_EXP + PCI_EXP_FLAGS, 2, 2 | (PCI_EXP_TYPE_RC_END << 4), 0);
	put(CAP_EXP + PCI_EXP_DEVCTL, 2, 0, 0x7fff);
}

static int fill_registers(const struct chip *c)
{
	void __iomem *bar0 = ioremap(base + BAR0_OFFSET, BAR0_SIZE);

	if (!bar0)
		return -ENOMEM;
	memset_io(bar0, 0, SZ_64K);
	writel(boot0 ?: BOOT0(c->id, c->revision), bar0 + BOOT0_OFFSET);
	writel(boot42 ?: BOOT42(c->id, c->revision), bar0 + BOOT42_OFFSET);
	iounmap(bar0);
	return 0;
}

static int read_config(struct pci_bus *on, unsigned int devfn, int where, int size, u32 *value)
{
	int i;

	*value = ~0u;
	if (on->number != bus || devfn)
		return PCIBIOS_DEVICE_NOT_FOUND;
	*value = 0;
	for (i = 0; i < size && where + i < CONFIG_SIZE; i++)
		*value |= (u32)config[where + i] << (8 * i);
	return PCIBIOS_SUCCESSFUL;
}

static int write_config(struct pci_bus *on, unsigned int devfn, int where, int size, u32 value)
{
	int i;

	if (on->number != bus || devfn)
		return PCIBIOS_DEVICE_NOT_FOUND;
	for (i = 0; i < size && where + i < CONFIG_SIZE; i++) {
		u8 mask = writable[where + i];

		config[where + i] = (config[where + i] & ~mask) | ((value >> (8 * i)) & mask);
	}
	return PCIBIOS_SUCCESSFUL;
}

static struct pci_ops config_ops = {
	.read = read_config,
	.write = write_config,
};

static int check_memory(void)
{
	if (!IS_ALIGNED(base, BAR1_SIZE) || base + WINDOW_SIZE > SZ_4G) {
		pr_err("base=%#lx must be a multiple of 256 MiB below 4 GiB\n", base);
		return -EINVAL;
	}
	if (region_intersects(base, WINDOW_SIZE, IORESOURCE_SYSTEM_RAM, IORES_DESC_NONE) != REGION_DISJOINT) {
		pr_err("memory at %#lx is in use: boot with memmap=512M$%#lx\n", base, base);
		return -EBUSY;
	}
	return 0;
}

/* Create the bus, find the function on it and offer it to drivers. Needs the PCI rescan lock. */
static int plug(void)
{
	LIST_HEAD(resources);
	struct pci_dev *function;

	pci_add_resource(&resources, &window);
	pci_add_resource(&resources, &bus_range);
	root_bus = pci_create_root_bus(NULL, bus, &config_ops, &sysdata, &resources);
	if (!root_bus) {
		pci_free_resource_list(&resources);
		return -ENODEV;
	}
	pci_scan_child_bus(root_bus);
	pci_bus_claim_resources(root_bus);
	function = pci_get_slot(root_bus, 0);
	if (function) {
		/* Without an interrupt pin the kernel assigns no number, and the driver wants to see one. */
		function->irq = irq;
		pci_dev_put(function);
	}
	pci_bus_add_devices(root_bus);
	return 0;
}

static int __init emulated_gpu_init(void)
{
	const struct chip *c = find_chip(chip);
	int err;

	if (!c) {
		pr_err("unknown chip=%s\n", chip);
		return -EINVAL;
	}
	if (domain > 0xffff || bus > 0xff) {
		pr_err("domain=%u bus=%u: at most 65535 and 255\n", domain, bus);
		return -EINVAL;
	}
	err = check_memory();
	if (err)
		return err;
	if (pci_find_bus(domain, bus)) {
		pr_err("bus %04x:%02x exists already\n", domain, bus);
		return -EEXIST;
	}
	fill_config(c);
	err = fill_registers(c);
	if (err)
		return err;

	window.start = base;
	window.end = base + WINDOW_SIZE - 1;
	bus_range.start = bus_range.end = bus;
	sysdata.domain = domain;
	sysdata.node = NUMA_NO_NODE;
	err = insert_resource(&iomem_resource, &window);
	if (err)
		return err;
	pci_lock_rescan_remove();
	err = plug();
	pci_unlock_rescan_remove();
	if (err) {
		remove_resource(&window);
		return err;
	}
	pr_info("%s at %04x:%02x:00.0\n", c->name, domain, bus);
	return 0;
}

static void __exit emulated_gpu_exit(void)
{
	pci_lock_rescan_remove();
	pci_stop_root_bus(root_bus);
	pci_remove_root_bus(root_bus);
	pci_unlock_rescan_remove();
	remove_resource(&window);
}

module_init(emulated_gpu_init);
module_exit(emulated_gpu_exit);
MODULE_DESCRIPTION("A software PCI host bridge with one function that answers as an NVIDIA GPU, for tests");
MODULE_LICENSE("GPL");
