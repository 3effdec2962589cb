// SPDX-License-Identifier: Apache-2.0
/*
 * Stand-in for nvidia-persistenced: background, pid file, socket, an open device, until SIGTERM; it keeps no state.
 *
 * A file of one word a line makes it misbehave: `fail REASON` tells syslog the reason and exits with 1, `die` ends it
 * by SIGKILL once it is up, `deaf` makes it ignore SIGTERM.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#define FOLDER		"/var/run/nvidia-persistenced"
#define PID_FILE	FOLDER "/nvidia-persistenced.pid"
#define SOCKET		FOLDER "/socket"
#define ORDERS		"/run/stand-in/persistenced"

static char reason[256];
static int deaf, die;

static void read_orders(void)
{
	char line[256];
	FILE *orders = fopen(ORDERS, "re");

	while (orders && fgets(line, sizeof(line), orders)) {
		line[strcspn(line, "\n")] = 0;
		if (!strncmp(line, "fail ", 5))
			strcpy(reason, line + 5);
		deaf |= !strcmp(line, "deaf");
		die |= !strcmp(line, "die");
	}
	if (orders)
		fclose(orders);
}

static void refuse(const char *why)
{
	syslog(LOG_ERR, "%s", why);
	exit(EXIT_FAILURE);
}

/* As the real one, it does not start beside the files of another. */
static int create_pid_file(void)
{
	mkdir(FOLDER, 0755);
	int file = open(PID_FILE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	if (file < 0)
		refuse("Failed to create the PID file; is another instance running?");
	return file;
}

static int listen_at_socket(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = SOCKET };
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 1))
		refuse("Failed to create the socket");
	return listener;
}

/* The first process ends only when the second is up: who started us finds the pid file written. */
static void go_to_background(int pid_file)
{
	pid_t child = fork();

	if (child < 0)
		refuse("Failed to fork");
	if (child > 0) {
		dprintf(pid_file, "%d\n", child);
		_exit(EXIT_SUCCESS);
	}
	setsid();
	close(pid_file);
	int null = open("/dev/null", O_RDWR);

	for (int stream = 0; stream < 3; stream++)
		dup2(null, stream);
	close(null);
}

int main(void)
{
	sigset_t wanted;
	int got;

	openlog("nvidia-persistenced", LOG_PID, LOG_DAEMON);
	read_orders();
	if (*reason)
		refuse(reason);
	int pid_file = create_pid_file();
	int listener = listen_at_socket();
	/* Persistence mode is nothing else than an open device. */
	int device = open("/dev/nvidiactl", O_RDWR | O_CLOEXEC);

	if (device < 0) {
		unlink(SOCKET);
		unlink(PID_FILE);
		refuse("Failed to query NVIDIA devices. Please ensure that the NVIDIA device files (/dev/nvidia*) exist");
	}
	sigemptyset(&wanted);
	sigaddset(&wanted, SIGTERM);
	sigprocmask(SIG_BLOCK, &wanted, NULL);
	go_to_background(pid_file);
	syslog(LOG_NOTICE, "Started (%d)", getpid());
	if (die)
		raise(SIGKILL);
	do
		sigwait(&wanted, &got);
	while (deaf);
	close(device);
	close(listener);
	unlink(SOCKET);
	unlink(PID_FILE);
	syslog(LOG_NOTICE, "Shutdown (%d)", getpid());
	return EXIT_SUCCESS;
}
