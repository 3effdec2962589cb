// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Stand-in for nvidia.ko: binds NVIDIA's PCI functions and owns the device numbers the others hang on to. */
#define pr_fmt(fmt) "NVRM: " fmt

#include <linux/firmware.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include "nvidia-proc.h"
#include "stand-in.h"

#define NVIDIA_MAJOR	195
#define CTL_MINOR	255
#define MODESET_MINOR	254
#define CAPS_MINORS	16
#define MAX_GPUS	32

STAND_IN_MODULE("nvidia");

static bool without_gpu;
module_param(without_gpu, bool, 0444);
MODULE_PARM_DESC(without_gpu, "load although there is no GPU");

static DEFINE_MUTEX(lock);
static struct pci_dev *gpus[MAX_GPUS];
static dev_t caps;
/* Of the other modules, which own them. */
static struct file_operations modeset_fops, uvm_fops, *registered;
static int uvm_major;

/* So that no signal ends it: the process shows state D. A test ends it by writing 0 to the parameter. */
void stand_in_sleep(const unsigned int *seconds)
{
	unsigned long began = jiffies;

	while (time_before(jiffies, began + (unsigned long)READ_ONCE(*seconds) * HZ))
		schedule_timeout_uninterruptible(HZ / 10);
}

int stand_in_begin(const unsigned int *hang, int failure)
{
	stand_in_sleep(hang);
	if (failure < 0 || failure > MAX_ERRNO)
		return -EINVAL;
	return -failure;
}

int nvidia_register_module(struct module *module)
{
	mutex_lock(&lock);
	modeset_fops.owner = module;
	registered = &modeset_fops;
	mutex_unlock(&lock);
	return 0;
}

void nvidia_unregister_module(void)
{
	mutex_lock(&lock);
	registered = NULL;
	mutex_unlock(&lock);
}

int nvUvmInterfaceSessionCreate(struct module *module)
{
	uvm_fops.owner = module;
	uvm_major = register_chrdev(0, "nvidia-uvm", &uvm_fops);
	return uvm_major < 0 ? uvm_major : 0;
}

void nvUvmInterfaceSessionDestroy(void)
{
	unregister_chrdev(uvm_major, "nvidia-uvm");
}

int nvidia_p2p_get_pages(void)
{
	return 0;
}

/* The real driver asks for the firmware at the first open of a GPU, not when it loads. */
static void request_gsp(struct pci_dev *gpu)
{
	const char *path = "nvidia/" STAND_IN_VERSION "/gsp_tu10x.bin";
	const struct firmware *firmware;

	if (!stand_in_wants_firmware())
		return;
	if (request_firmware(&firmware, path, &gpu->dev)) {
		pr_info("GPU %s: no firmware %s\n", pci_name(gpu), path);
		return;
	}
	pr_info("GPU %s: firmware %s, %zu bytes\n", pci_name(gpu), path, firmware->size);
	release_firmware(firmware);
}

/*
 * A control open always works; another minor needs a GPU or a module behind it. The opened one holds its module: as in
 * the real driver a third time, beside the two references of the kernel's chrdev_open.
 */
static int frontend_open(struct inode *inode, struct file *file)
{
	unsigned int minor = iminor(inode);
	const struct file_operations *fops = NULL;
	struct pci_dev *gpu = NULL;

	if (minor == CTL_MINOR) {
		__module_get(THIS_MODULE);
		return 0;
	}
	mutex_lock(&lock);
	if (minor == MODESET_MINOR)
		fops = fops_get(registered);
	if (minor < MAX_GPUS && gpus[minor])
		gpu = pci_dev_get(gpus[minor]);
	mutex_unlock(&lock);
	if (fops) {
		replace_fops(file, fops);
		return 0;
	}
	if (!gpu)
		return -ENODEV;
	request_gsp(gpu);
	pci_dev_put(gpu);
	__module_get(THIS_MODULE);
	return 0;
}

static int frontend_release(struct inode *inode, struct file *file)
{
	module_put(THIS_MODULE);
	return 0;
}

/* A mapping of nothing: it keeps the file, and so the module, when the descriptor is closed. */
static int frontend_mmap(struct file *file, struct vm_area_struct *area)
{
	static const struct vm_operations_struct nothing;

	area->vm_ops = &nothing;
	return 0;
}

static const struct file_operations frontend_fops = {
	.owner = THIS_MODULE,
	.open = frontend_open,
	.release = frontend_release,
	.mmap = frontend_mmap,
};

static int probe(struct pci_dev *gpu, const struct pci_device_id *id)
{
	unsigned int minor;

	mutex_lock(&lock);
	for (minor = 0; minor < MAX_GPUS && gpus[minor]; minor++)
		;
	if (minor < MAX_GPUS)
		gpus[minor] = gpu;
	mutex_unlock(&lock);
	if (minor == MAX_GPUS)
		return -ENOSPC;
	stand_in_proc_add_gpu(gpu, minor);
	return 0;
}

static void unbind(struct pci_dev *gpu)
{
	unsigned int minor;

	stand_in_proc_remove_gpu(gpu);
	mutex_lock(&lock);
	for (minor = 0; minor < MAX_GPUS; minor++)
		if (gpus[minor] == gpu)
			gpus[minor] = NULL;
	mutex_unlock(&lock);
}

/* All of NVIDIA's display controllers: VGA and 3D, as in the real driver's table. */
static const struct pci_device_id ids[] = {
	{ PCI_DEVICE_CLASS(PCI_CLASS_DISPLAY_VGA << 8, ~0), .vendor = PCI_VENDOR_ID_NVIDIA },
	{ PCI_DEVICE_CLASS(PCI_CLASS_DISPLAY_3D << 8, ~0), .vendor = PCI_VENDOR_ID_NVIDIA },
	{ }
};
MODULE_DEVICE_TABLE(pci, ids);

static struct pci_driver driver = {
	.name = "nvidia",
	.id_table = ids,
	.probe = probe,
	.remove = unbind,
};

static bool any_gpu(void)
{
	unsigned int minor;

	for (minor = 0; minor < MAX_GPUS; minor++)
		if (gpus[minor])
			return true;
	return without_gpu;
}

static int __init nvidia_init(void)
{
	int err = stand_in_begin(&hang_init, fail_init);

	if (err)
		return err;
	err = register_chrdev(NVIDIA_MAJOR, "nvidia-frontend", &frontend_fops);
	if (err < 0)
		return err;
	err = alloc_chrdev_region(&caps, 0, CAPS_MINORS, "nvidia-caps");
	if (err)
		goto no_caps;
	err = stand_in_proc_add();
	if (err)
		goto no_proc;
	err = pci_register_driver(&driver);
	if (err)
		goto no_driver;
	if (!any_gpu()) {
		pr_info("No NVIDIA GPU found.\n");
		err = -ENODEV;
		goto no_gpu;
	}
	pr_info("loading NVIDIA UNIX x86_64 Kernel Module  " STAND_IN_VERSION "  (stand-in)\n");
	return 0;

no_gpu:
	pci_unregister_driver(&driver);
no_driver:
	stand_in_proc_remove();
no_proc:
	unregister_chrdev_region(caps, CAPS_MINORS);
no_caps:
	unregister_chrdev(NVIDIA_MAJOR, "nvidia-frontend");
	return err;
}

static void __exit nvidia_exit(void)
{
	stand_in_sleep(&hang_exit);
	pci_unregister_driver(&driver);
	stand_in_proc_remove();
	unregister_chrdev_region(caps, CAPS_MINORS);
	unregister_chrdev(NVIDIA_MAJOR, "nvidia-frontend");
}

module_init(nvidia_init);
module_exit(nvidia_exit);
