// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Stand-in for nvidia-modeset.ko: minor 254 of nvidia's major number. */
#include "stand-in.h"

STAND_IN_FAILURES("nvidia-modeset");

static bool fail_malloc;
module_param_named(fail_malloc, fail_malloc, bool, 0400);
static bool malloc_verbose;
module_param_named(malloc_verbose, malloc_verbose, bool, 0400);
static char *config_file;
module_param_named(config_file, config_file, charp, 0400);

static const struct file_operations fops = {
	.owner = THIS_MODULE,
};

static int __init modeset_init(void)
{
	int err = stand_in_begin();

	if (err)
		return err;
	return nvidia_register_module(&fops, NVIDIA_MODESET_MINOR);
}

static void __exit modeset_exit(void)
{
	stand_in_sleep(hang_exit);
	nvidia_unregister_module(NVIDIA_MODESET_MINOR);
}

module_init(modeset_init);
module_exit(modeset_exit);
