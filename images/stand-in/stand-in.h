/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The stand-in driver: modules with NVIDIA's names, dependencies, numbers and files, and none of its function.
 * What each module shares: its version, and parameters that make it fail or hang on demand.
 *
 * The kernel's large headers take nearly all of a compilation's time, which counts where the processor is emulated:
 * only nvidia-main.c includes them, and does for the others what needs them.
 */
#ifndef STAND_IN_H
#define STAND_IN_H

#include <linux/compiler.h>
#include <linux/export.h>
#include <linux/moduleparam.h>

#ifdef STAND_IN_OPEN
#define STAND_IN_LICENSE "Dual MIT/GPL"
#else
#define STAND_IN_LICENSE "NVIDIA"
#endif

/* What nvidia offers to the other modules; the names are those NVIDIA's modules use. */
int nvidia_register_module(struct module *module);
void nvidia_unregister_module(void);
int nvUvmInterfaceSessionCreate(struct module *module);
void nvUvmInterfaceSessionDestroy(void);
int nvidia_p2p_get_pages(void);

/* What each init begins with, and each exit. */
int stand_in_begin(const unsigned int *hang, int failure);
void stand_in_sleep(const unsigned int *seconds);

/* What a module says of itself, and how it is made to fail. */
#define STAND_IN_MODULE(name)									\
	static int fail_init;									\
	module_param(fail_init, int, 0444);							\
	MODULE_PARM_DESC(fail_init, "init fails with this errno");				\
	static uint hang_init;									\
	module_param(hang_init, uint, 0644);							\
	MODULE_PARM_DESC(hang_init, "init sleeps uninterruptibly for so many seconds, or until this is 0");		\
	static uint hang_exit;									\
	module_param(hang_exit, uint, 0644);							\
	MODULE_PARM_DESC(hang_exit, "exit sleeps uninterruptibly for so many seconds, or until this is 0");		\
	__MODULE_INFO(version, version, STAND_IN_VERSION);					\
	__MODULE_INFO(license, license, STAND_IN_LICENSE);					\
	__MODULE_INFO(description, description, "Stand-in for NVIDIA's " name " module, for tests")

/* What module_init() and module_exit() of linux/module.h come to. */
#define STAND_IN_ENDS(create, destroy)								\
	int init_module(void);									\
	int __init init_module(void)								\
	{											\
		int err = stand_in_begin(&hang_init, fail_init);					\
												\
		return err ? err : create;							\
	}											\
	___ADDRESSABLE(init_module, __initdata);						\
	void cleanup_module(void);								\
	void __exit cleanup_module(void)							\
	{											\
		stand_in_sleep(&hang_exit);							\
		destroy;									\
	}											\
	___ADDRESSABLE(cleanup_module, __exitdata)

#endif
