// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Stand-in for nvidia-peermem.ko: it depends on nvidia and does nothing. */
#include "stand-in.h"

STAND_IN_FAILURES("nvidia-peermem");

static int peerdirect_support;
module_param(peerdirect_support, int, 0444);
static int persistent_api_support = 1;
module_param(persistent_api_support, int, 0444);

static int __init peermem_init(void)
{
	int err = stand_in_begin();

	return err ? err : nvidia_p2p_get_pages();
}

static void __exit peermem_exit(void)
{
	stand_in_sleep(hang_exit);
}

module_init(peermem_init);
module_exit(peermem_exit);
