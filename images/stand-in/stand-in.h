/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The stand-in driver: modules with NVIDIA's names, dependencies, numbers and files, and none of its function.
 * What each module shares: its version, and parameters that make it fail or hang on demand.
 */
#ifndef STAND_IN_H
#define STAND_IN_H

#include <linux/fs.h>
#include <linux/module.h>
#include <linux/sched.h>

#ifdef STAND_IN_OPEN
#define STAND_IN_LICENSE "Dual MIT/GPL"
#else
#define STAND_IN_LICENSE "NVIDIA"
#endif

/* What nvidia offers to the other modules; the names are those NVIDIA's modules use. */
int nvidia_register_module(const struct file_operations *fops, unsigned int minor);
void nvidia_unregister_module(unsigned int minor);
int nvUvmInterfaceSessionCreate(void);
int nvidia_p2p_get_pages(void);

#define NVIDIA_MODESET_MINOR	254
#define NVIDIA_CTL_MINOR	255

/* Sleep so that no signal ends it: the process shows state D. */
static inline void stand_in_sleep(unsigned int seconds)
{
	unsigned long left = (unsigned long)seconds * HZ;

	while (left)
		left = schedule_timeout_uninterruptible(left);
}

#define STAND_IN_FAILURES(module)								\
	static int fail_init;									\
	module_param(fail_init, int, 0444);							\
	MODULE_PARM_DESC(fail_init, "init fails with this errno");				\
	static uint hang_init;									\
	module_param(hang_init, uint, 0444);							\
	MODULE_PARM_DESC(hang_init, "init sleeps uninterruptibly for so many seconds");		\
	static uint hang_exit;									\
	module_param(hang_exit, uint, 0644);							\
	MODULE_PARM_DESC(hang_exit, "exit sleeps uninterruptibly for so many seconds");		\
	static int stand_in_begin(void)								\
	{											\
		stand_in_sleep(hang_init);							\
		if (fail_init < 0 || fail_init > MAX_ERRNO)					\
			return -EINVAL;								\
		return -fail_init;								\
	}											\
	MODULE_VERSION(STAND_IN_VERSION);							\
	MODULE_LICENSE(STAND_IN_LICENSE);							\
	MODULE_DESCRIPTION("Stand-in for NVIDIA's " module " module, for tests")

#endif
