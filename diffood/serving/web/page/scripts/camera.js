// The camera: opens it, and takes pictures that have the detector's aspect ratio.

/** Why there is no camera, as a sentence for the user. */
function explain(error) {
  if (!navigator.mediaDevices) return "Browsers open cameras only for pages that come by https, or from this machine.";
  if (error.name === "NotAllowedError") return "The camera was not allowed: change that in the browser's settings.";
  if (error.name === "NotFoundError") return "No camera was found.";
  return `The camera cannot be opened: ${error.message}`;
}

/** Shows the camera in a video element; throws an Error that says why it cannot. */
export async function openCamera(video) {
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
    await video.play();
  } catch (error) {
    throw new Error(explain(error));
  }
}

/** Switches the camera off. */
export function closeCamera(video) {
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
}

/** The middle of what the camera sees, as an ImageBitmap. */
export function takePicture(video, { height, width }) {
  const scale = Math.min(video.videoWidth / width, video.videoHeight / height);
  const [across, down] = [Math.round(width * scale), Math.round(height * scale)];
  const left = Math.floor((video.videoWidth - across) / 2);
  const top = Math.floor((video.videoHeight - down) / 2);
  return createImageBitmap(video, left, top, across, down, { colorSpaceConversion: "none" });
}
