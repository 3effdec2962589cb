/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Between nvidia-main.c and nvidia-proc.c. */
#ifndef NVIDIA_PROC_H
#define NVIDIA_PROC_H

#include <linux/pci.h>

int stand_in_proc_add(void);
void stand_in_proc_remove(void);
void stand_in_proc_add_gpu(struct pci_dev *gpu, unsigned int minor);
void stand_in_proc_remove_gpu(struct pci_dev *gpu);
bool stand_in_wants_firmware(void);

#endif
