// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Stand-in for nvidia-uvm.ko: a major number of its own with two devices, nvidia-uvm and nvidia-uvm-tools. */
#include "stand-in.h"

STAND_IN_FAILURES("nvidia-uvm");

static int uvm_disable_hmm;
module_param(uvm_disable_hmm, int, 0444);
static int uvm_debug_prints;
module_param(uvm_debug_prints, int, 0644);
static uint uvm_perf_prefetch_enable = 1;
module_param(uvm_perf_prefetch_enable, uint, 0444);

static int major;

static const struct file_operations fops = {
	.owner = THIS_MODULE,
};

static int __init uvm_init(void)
{
	int err = stand_in_begin();

	if (err)
		return err;
	err = nvUvmInterfaceSessionCreate();
	if (err)
		return err;
	major = register_chrdev(0, "nvidia-uvm", &fops);
	return major < 0 ? major : 0;
}

static void __exit uvm_exit(void)
{
	stand_in_sleep(hang_exit);
	unregister_chrdev(major, "nvidia-uvm");
}

module_init(uvm_init);
module_exit(uvm_exit);
