/** A file that is dropped on the page; without this the browser would leave the page for the file. */

export function onDrop(take) {
  addEventListener("dragover", (event) => isFile(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!isFile(event)) return;
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
}

const isFile = ({ dataTransfer }) => dataTransfer?.types.includes("Files");
