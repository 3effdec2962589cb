// SPDX-License-Identifier: GPL-2.0 OR MIT
/* What nvidia.ko exports. Where a file exports, all that it includes is read a second time, for the symbols' versions. */
#include "stand-in.h"

EXPORT_SYMBOL(stand_in_sleep);
EXPORT_SYMBOL(stand_in_begin);
EXPORT_SYMBOL(nvidia_register_module);
EXPORT_SYMBOL(nvidia_unregister_module);
EXPORT_SYMBOL(nvUvmInterfaceSessionCreate);
EXPORT_SYMBOL(nvUvmInterfaceSessionDestroy);
EXPORT_SYMBOL(nvidia_p2p_get_pages);
