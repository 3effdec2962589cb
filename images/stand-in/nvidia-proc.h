/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Stand-in for nvidia.ko: its parameters and the files under /proc/driver/nvidia, in the real ones' formats.
 * Part of nvidia-main.c, because each compilation costs seconds where the processor is emulated.
 */
#ifndef NVIDIA_PROC_H
#define NVIDIA_PROC_H

#include <linux/pci.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

/* As in the real driver, these are not in sysfs (mode 0) but in /proc/driver/nvidia/params, without the prefix. */
#define FOR_EACH_NUMBER(X)				\
	X(ResmanDebugLevel, ~0)				\
	X(RmLogonRC, 1)					\
	X(ModifyDeviceFiles, 1)				\
	X(DeviceFileUID, 0)				\
	X(DeviceFileGID, 0)				\
	X(DeviceFileMode, 438)				\
	X(InitializeSystemMemoryAllocations, 1)		\
	X(UsePageAttributeTable, ~0)			\
	X(EnableMSI, 1)					\
	X(EnablePCIeGen3, 0)				\
	X(MemoryPoolSize, 0)				\
	X(EnableStreamMemOPs, 0)			\
	X(RestrictProfilingToAdminUsers, 1)		\
	X(PreserveVideoMemoryAllocations, 0)		\
	X(DynamicPowerManagement, 3)			\
	X(EnableGpuFirmware, 18)			\
	X(OpenRmEnableUnsupportedGpus, 0)

#define FOR_EACH_TEXT(X)				\
	X(RegistryDwords)				\
	X(RegistryDwordsPerDevice)			\
	X(RmMsg)					\
	X(GpuBlacklist)					\
	X(TemporaryFilePath)				\
	X(ExcludedGpus)

#define NUMBER(name, value)				\
	static int NVreg_##name = value;		\
	module_param(NVreg_##name, int, 0);
FOR_EACH_NUMBER(NUMBER)

#define TEXT(name)					\
	static char *NVreg_##name;			\
	module_param(NVreg_##name, charp, 0);
FOR_EACH_TEXT(TEXT)

#ifdef STAND_IN_OPEN
#define PRODUCT "NVIDIA UNIX Open Kernel Module for x86_64"
#else
#define PRODUCT "NVIDIA UNIX x86_64 Kernel Module"
#endif

static struct proc_dir_entry *nvidia_dir, *gpus_dir;

/* The low four bits choose the mode, 0 is off; the others say what happens where firmware is not supported. */
static bool stand_in_wants_firmware(void)
{
	return NVreg_EnableGpuFirmware & 0xf;
}

static int show_version(struct seq_file *out, void *unused)
{
	seq_puts(out, "NVRM version: " PRODUCT "  " STAND_IN_VERSION "  Thu Jan  1 00:00:00 UTC 2026\n");
	seq_puts(out, "GCC version:  gcc version " __VERSION__ " \n");
	return 0;
}

static int show_params(struct seq_file *out, void *unused)
{
#define SHOW_NUMBER(name, value) seq_printf(out, #name ": %u\n", NVreg_##name);
	FOR_EACH_NUMBER(SHOW_NUMBER)
#define SHOW_TEXT(name) seq_printf(out, #name ": \"%s\"\n", NVreg_##name ? NVreg_##name : "");
	FOR_EACH_TEXT(SHOW_TEXT)
	return 0;
}

static int show_capability(struct seq_file *out, void *unused)
{
	seq_printf(out, "DeviceFileMinor: %lu\n", (unsigned long)out->private);
	seq_puts(out, "DeviceFileMode: 256\nDeviceFileModify: 1\n");
	return 0;
}

static void add_capabilities(void)
{
	struct proc_dir_entry *caps = proc_mkdir("capabilities", nvidia_dir);
	struct proc_dir_entry *mig = caps ? proc_mkdir("mig", caps) : NULL;

	if (!mig)
		return;
	proc_create_single_data("config", 0400, mig, show_capability, (void *)1);
	proc_create_single_data("monitor", 0444, mig, show_capability, (void *)2);
}

static void stand_in_proc_remove(void)
{
	proc_remove(nvidia_dir);
	nvidia_dir = gpus_dir = NULL;
}

static int stand_in_proc_add(void)
{
	nvidia_dir = proc_mkdir("driver/nvidia", NULL);
	gpus_dir = nvidia_dir ? proc_mkdir("gpus", nvidia_dir) : NULL;
	if (!gpus_dir) {
		stand_in_proc_remove();
		return -ENOMEM;
	}
	proc_create_single("version", 0444, nvidia_dir, show_version);
	proc_create_single("params", 0444, nvidia_dir, show_params);
	add_capabilities();
	return 0;
}

static int show_information(struct seq_file *out, void *unused)
{
	struct pci_dev *gpu = out->private;

	seq_printf(out, "Model: \t\t Stand-in %04x\n", gpu->device);
	seq_printf(out, "IRQ:   \t\t %u\n", gpu->irq);
	seq_puts(out, "GPU UUID: \t GPU-\?\?\?\?\?\?\?\?-\?\?\?\?-\?\?\?\?-\?\?\?\?-\?\?\?\?\?\?\?\?\?\?\?\?\n");
	seq_puts(out, "Video BIOS: \t \?\?.\?\?.\?\?.\?\?.\?\?\n");
	seq_puts(out, "Bus Type: \t PCIe\n");
	seq_puts(out, "DMA Size: \t 47 bits\n");
	seq_puts(out, "DMA Mask: \t 0x7fffffffffff\n");
	seq_printf(out, "Bus Location: \t %s\n", pci_name(gpu));
	seq_printf(out, "Device Minor: \t %lu\n", (unsigned long)pci_get_drvdata(gpu));
	seq_puts(out, "GPU Firmware: \t N/A\n");
	seq_puts(out, "GPU Excluded:\t No\n");
	return 0;
}

static void stand_in_proc_add_gpu(struct pci_dev *gpu, unsigned int minor)
{
	struct proc_dir_entry *dir = proc_mkdir(pci_name(gpu), gpus_dir);

	pci_set_drvdata(gpu, (void *)(unsigned long)minor);
	if (dir)
		proc_create_single_data("information", 0444, dir, show_information, gpu);
}

static void stand_in_proc_remove_gpu(struct pci_dev *gpu)
{
	remove_proc_subtree(pci_name(gpu), gpus_dir);
}

#endif
